from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from tiny import JOB, write_job

from autoprune.config.job import Job, load_job
from autoprune.config.space import SpaceOptions, load_space_options
from autoprune.config.validation import validated
from autoprune.errors import ConfigError

ROOT = Path(__file__).parents[2]
JOBS = sorted((ROOT / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_every_shipped_job_is_valid_and_shows_every_key(path: Path) -> None:
    job = load_job(path)
    assert job.name == path.stem
    shown = yaml.safe_load(path.read_text())
    for section, model in Job.model_fields.items():
        assert section in shown, f"{section} is not shown"
        annotation = model.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel) and isinstance(shown[section], dict):
            assert set(annotation.model_fields) <= set(shown[section]), section


@pytest.mark.parametrize("path", sorted((ROOT / "search_spaces").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_space_file_is_valid(path: Path) -> None:
    assert load_space_options(path) is not None


def test_a_job_survives_being_written(tmp_path: Path) -> None:
    job = load_job(
        write_job(tmp_path / "job.yaml", {"space": {"ratios": [0.25, 0.5]}, "model.weights": "w.pt", "engine": "ray"})
    )
    (tmp_path / "again.yaml").write_text(job.text)
    assert load_job(tmp_path / "again.yaml") == job


def test_every_key_has_a_default_but_model_data_and_constraints() -> None:
    job = Job.model_validate({key: JOB[key] for key in ("model", "data", "constraints")})
    assert job.search.trials == 100
    for key in ("model", "data", "constraints"):
        with pytest.raises(ConfigError, match=f"key '{key}' is missing; it has no default"):
            validated(Job, {k: v for k, v in JOB.items() if k != key}, "job")


def test_every_problem_is_named_at_once(tmp_path: Path) -> None:
    path = write_job(tmp_path / "job.yaml", {"sed": 1, "training.epochs": 0, "search.controler": {}})
    with pytest.raises(ConfigError) as caught:
        load_job(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "unknown key 'sed'. Did you mean 'seed'?" in message
    assert "training.epochs: input should be greater than or equal to 1, got 0" in message
    assert "unknown key 'search.controler'. Did you mean 'controller'? Allowed here: early_stopping," in message
    assert "pydantic" not in message


@given(st.sampled_from(sorted(Job.model_fields)), st.integers(0, 20), st.sampled_from("xyz"))
def test_any_misspelt_key_is_refused(key: str, position: int, letter: str) -> None:
    misspelt = key[:position] + letter + key[position:]
    with pytest.raises(ConfigError, match=f"unknown key '{misspelt}'"):
        validated(Job, {**JOB, misspelt: None}, "job")


@pytest.mark.parametrize("name", ["", "a/b", "../up", ".hidden", "two words"])
def test_a_name_is_a_folders_name(name: str) -> None:
    with pytest.raises(ConfigError, match=r"name: .*pattern"):
        validated(Job, {**JOB, "name": name}, "job")


def test_options_are_values(tmp_path: Path) -> None:
    options = SpaceOptions()
    with pytest.raises(ValueError, match="frozen"):
        options.divisor = 8  # type: ignore[misc]
    assert hash(options) == hash(SpaceOptions())


def test_a_space_file_is_found_from_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "spaces").mkdir()
    (tmp_path / "spaces" / "eights.yaml").write_text("divisor: 8\n")
    path = write_job(tmp_path / "configs" / "job.yaml", {"space": "spaces/eights.yaml"})
    assert load_job(path).space.divisor == 8
    (tmp_path / "spaces" / "eights.yaml").write_text("divisr: 8\n")
    with pytest.raises(ConfigError, match=r"eights\.yaml: unknown key 'divisr'\. Did you mean 'divisor'"):
        load_job(path)


@pytest.mark.parametrize("part", ["controller", "evaluator"])
def test_a_part_is_a_name_or_a_name_with_settings(part: str) -> None:
    plain = validated(Job, {**JOB, "search": {part: "x"}}, "job")
    assert plain == validated(Job, {**JOB, "search": {part: {"name": "x"}}}, "job")
    with pytest.raises(ConfigError) as caught:
        validated(Job, {**JOB, "search": {part: ["x"]}}, "job")
    assert str(caught.value) == f"job: search.{part}: must hold keys (name, settings), or be a plain name, got ['x']"


@pytest.mark.parametrize("limit", ["50%", "40M", 40_000_000, 4e7, np.int64(3), np.float32(3)])
def test_a_limit_is_a_text_or_a_real_number(limit: object) -> None:
    job = validated(Job, {**JOB, "constraints": {"flops": limit}}, "job")
    assert job.constraints == {"flops": limit}


@pytest.mark.parametrize("limit", [True, None, 1j, [1, None]])
def test_anything_else_is_no_limit(limit: object) -> None:
    with pytest.raises(ConfigError, match=r"^job: constraints\.flops: a limit must be .*, got [^\n]*$"):
        validated(Job, {**JOB, "constraints": {"flops": limit}}, "job")


def test_a_seed_fits_every_generator() -> None:
    assert validated(Job, {**JOB, "seed": 2**63 - 1}, "job").seed == 2**63 - 1
    with pytest.raises(ConfigError, match="seed: input should be less than or equal to 9223372036854775807"):
        validated(Job, {**JOB, "seed": 2**63}, "job")


def test_messages_keep_the_case_of_what_they_quote() -> None:
    with pytest.raises(ConfigError, match=re.escape("name: string should match pattern '^[A-Za-z0-9]")):
        validated(Job, {**JOB, "name": "a/b"}, "job")


def test_a_list_of_ratios_is_not_empty() -> None:
    with pytest.raises(ConfigError, match=r"ratios: tuple should have at least 1 item"):
        validated(SpaceOptions, {"ratios": []}, "space")


@pytest.mark.parametrize("ratios", [[0.0], [1.2], ["half"]])
def test_ratios_are_shares(ratios: list[object]) -> None:
    with pytest.raises(ConfigError, match=r"ratios\.0: input should be"):
        validated(SpaceOptions, {"ratios": ratios}, "space")


def test_files_that_a_job_names_are_found_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "jobs"
    (folder / "data").mkdir(parents=True)
    for name in ("cpu.json", "w.safetensors"):
        (folder / name).write_text("{}")
    changes = {
        "metrics": {"latency_ms": {"profile": "cpu.json"}, "peak_memory_mb": {"batch": 8}},
        "model.weights": "w.safetensors",
        "data.path": "data",
    }
    path = write_job(folder / "job.yaml", changes)
    monkeypatch.chdir(tmp_path)
    job = load_job(path)
    assert (job.model.weights, job.data.path) == (folder / "w.safetensors", folder / "data")
    assert job.metrics == {"latency_ms": {"profile": str(folder / "cpu.json")}, "peak_memory_mb": {"batch": 8}}
    (tmp_path / "cpu.json").write_text("{}")
    assert load_job(path).metrics["latency_ms"] == {"profile": "cpu.json"}  # what lies in the current folder wins
    missing = load_job(write_job(folder / "job.yaml", {"metrics": {"latency_ms": {"profile": "gpu.json"}}}))
    assert missing.metrics["latency_ms"] == {"profile": "gpu.json"}
    content = {"format": 1}
    given = load_job(write_job(folder / "job.yaml", {"metrics": {"latency_ms": {"profile": content}}}))
    assert given.metrics["latency_ms"] == {"profile": content}


@pytest.mark.parametrize(
    ("section", "key"), [("verdict", "protocols"), ("sparsity", "methods")], ids=["protocols", "sparsity"]
)
def test_what_is_kept_by_its_label_stands_once(section: str, key: str) -> None:
    given = [{"name": "one", "settings": {"a": 1, "b": 2}}, "one", {"settings": {"b": 2, "a": 1}, "name": "one"}]
    with pytest.raises(ConfigError, match=rf"{section}\.{key}: one\(a=1, b=2\) stands twice"):
        validated(Job, {**JOB, section: {key: given}}, "job")
    assert validated(Job, {**JOB, section: {key: given[:2]}}, "job")
