"""Early stopping and limits of a job: how they are written, what they change, and where they stood before."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny import write_job

from autoprune.config.job import Job, load_job
from autoprune.config.stopping import NEVER, StoppingOptions
from autoprune.config.validation import validated
from autoprune.deprecation import MovedWarning
from autoprune.errors import ConfigError
from autoprune.pipeline.fingerprints import job_fingerprint, same_job


def job_of(folder: Path, **changes: Any) -> Job:
    return load_job(write_job(folder / "job.yaml", {key.replace("__", "."): value for key, value in changes.items()}))


@pytest.mark.parametrize(
    ("given", "seconds"), [(5, 5), ("5", 5), ("90s", 90), ("10 min", 600), ("2h", 7200), ("0.5d", 43200), (None, None)]
)
def test_a_time_is_seconds_or_has_a_unit(given: Any, seconds: float | None) -> None:
    assert validated(StoppingOptions, {"time_limit": given}, "job").time_limit == seconds


def test_memory_has_a_unit_in_powers_of_ten() -> None:
    assert validated(StoppingOptions, {"memory_limit": "1.5 GB"}, "job").memory_limit == 1_500_000_000


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"time_limit": -1}, "search.time_limit: input should be greater than 0, got -1"),
        ({"time_limit": "0h"}, "search.time_limit: input should be greater than 0"),
        ({"time_limit": "2 weeks"}, "a number with its unit: s, min, h or d, got '2 weeks'"),
        ({"time_limit": float("inf")}, "search.time_limit: input should be a finite number"),
        ({"memory_limit": "much"}, "memory must be a number with its unit: B, kB, MB, GB or TB, got 'much'"),
        (
            {"early_stopping": "ahsa"},
            "search.early_stopping: input should be 'none', 'asha' or 'hyperband', got 'ahsa'",
        ),
        ({"early_stoping": "asha"}, "unknown key 'search.early_stoping'. Did you mean 'early_stopping'?"),
    ],
)
def test_what_they_cannot_be_is_one_clear_error(tmp_path: Path, wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        job_of(tmp_path, **{f"search__{key}": value for key, value in wrong.items()})
    assert said in str(caught.value)


def test_they_are_fingerprinted_and_at_their_defaults_no_job_changes(tmp_path: Path) -> None:
    plain = job_of(tmp_path)
    assert not set(StoppingOptions.model_fields) & set(plain.model_dump()["search"])
    said = job_of(tmp_path, search__early_stopping="none")
    prints = [job_fingerprint(job_of(tmp_path, **{f"search__{key}": value})) for key, value in _OTHERS]
    assert job_fingerprint(said) == job_fingerprint(plain)
    assert len({job_fingerprint(plain), *prints}) == 1 + len(prints)


_OTHERS = (("early_stopping", "asha"), ("early_stopping", "hyperband"), ("time_limit", 9), ("memory_limit", "1GB"))


def test_a_fingerprint_of_format_1_knows_nothing_of_them(tmp_path: Path) -> None:
    before, now = job_fingerprint(job_of(tmp_path)), job_of(tmp_path, search__early_stopping="asha")
    assert same_job(before, now, job_format=1)
    assert not same_job(before, now)
    assert not same_job(before, job_of(tmp_path, search__early_stopping="asha", seed=1), job_format=1)


def test_a_job_file_keeps_them(tmp_path: Path) -> None:
    job = job_of(tmp_path, search__early_stopping="asha", search__time_limit="2h", engine="ray")
    (tmp_path / "kept.yaml").write_text(job.text)
    again = load_job(tmp_path / "kept.yaml")
    assert again.search.stopping == StoppingOptions(early_stopping="asha", time_limit=7200)
    assert again.text == job.text


@pytest.mark.filterwarnings("ignore::autoprune.deprecation.MovedWarning")
def test_what_stood_under_engine_is_moved_with_its_names_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMORY", "1GB")
    monkeypatch.setenv("SCHEDULER", "asha")
    old = {"name": "ray", "retries": 0, "memory_limit": "${MEMORY}", "time_limit": 5, "scheduler": "${SCHEDULER}"}
    job = job_of(tmp_path, engine=old)
    expected = StoppingOptions(early_stopping="asha", time_limit=5, memory_limit=10**9)
    assert (job.search.stopping, job.engine.retries) == (expected, 0)
    kept = yaml.safe_load(job.text)
    assert kept["engine"] == {"name": "ray", "retries": 0}
    written = {key: kept["search"][key] for key in StoppingOptions.model_fields}
    assert written == {"early_stopping": "${SCHEDULER}", "time_limit": 5.0, "memory_limit": 10**9}


def test_each_key_that_moved_is_told_once(tmp_path: Path) -> None:
    with pytest.warns(MovedWarning) as seen:
        job_of(tmp_path, engine={"name": "local", "scheduler": "asha"})
    told = [str(warning.message) for warning in seen]
    assert told == [
        "engine.scheduler has moved (2026-11-29): use search.early_stopping; the old name goes after 2027-11-29"
    ]


@pytest.mark.filterwarnings("ignore::autoprune.deprecation.MovedWarning")
def test_both_places_must_agree(tmp_path: Path) -> None:
    agreed = job_of(tmp_path, engine={"name": "ray", "memory_limit": "1GB"}, search__memory_limit=10**9)
    assert agreed.search.memory_limit == 10**9
    said = r"engine\.time_limit is 5 and search\.time_limit is 6: the two are the same option"
    with pytest.raises(ConfigError, match=said):
        job_of(tmp_path, engine={"name": "ray", "time_limit": 5}, search__time_limit=6)


@pytest.mark.parametrize("wrong", [{"engine": 3}, {"engine": {"scheduler": "asha"}, "search": 3}, {"search": None}])
def test_what_is_no_section_is_refused_as_ever(tmp_path: Path, wrong: dict[str, Any]) -> None:
    job = {"model": {"factory": "resnet20"}, "data": {"name": "digits"}, "constraints": {"flops": "50%"}}
    with pytest.raises(ConfigError, match=r"(engine|search): must hold keys|(engine|search): input should be"):
        validated(Job, job | wrong, "job")


def test_they_travel_to_workers_alone() -> None:
    options = validated(Job, {
        "model": {"factory": "resnet20"}, "data": {"name": "digits"}, "constraints": {"flops": "50%"},
        "search": {"early_stopping": "asha"},
    }, "job").search.stopping  # fmt: skip
    assert type(options) is StoppingOptions
    assert pickle.loads(pickle.dumps(options)) == options != NEVER
