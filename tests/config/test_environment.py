from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tiny import JOB, write_job

from autoprune.config.environment import expanded, written
from autoprune.config.job import Job, load_job
from autoprune.config.validation import validated
from autoprune.errors import ConfigError, UnsetVariableError
from autoprune.pipeline.fingerprints import job_fingerprint

URL = "postgresql://user:{}@host/name"


def again(job: Job, folder: Path) -> Job:
    (folder / "again").mkdir(exist_ok=True)
    (folder / "again" / "job.yaml").write_text(job.text)
    return load_job(folder / "again" / "job.yaml")


def test_values_come_from_the_environment_and_are_kept_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {
        "search.storage": URL.format("${PG_PASSWORD}"),
        "search.controller": {"name": "${CONTROLLER}"},
        "search.allocations": ["${ALLOCATION}"],
        "data.path": "${DATA}/digits",
        "data.arguments": {"nested": ["a-${X}-${Y:-two}", {"plain": "$${X}"}]},
        "engine": {"name": "ray", "storage_path": "s3://${BUCKET}/x"},
        "search.memory_limit": "${MEMORY}",
    }
    for name, value in {
        "PG_PASSWORD": "hunter2", "CONTROLLER": "random", "ALLOCATION": "uniform_all", "DATA": "files", "X": "one",
        "BUCKET": "b", "MEMORY": "1GB",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    (tmp_path / "files" / "digits").mkdir(parents=True)
    job = load_job(write_job(tmp_path / "job.yaml", changes))
    assert job.search.storage == URL.format("hunter2")
    assert (job.search.controller.name, job.search.allocations[0].name) == ("random", "uniform_all")
    assert job.data.path == tmp_path / "files" / "digits", "found beside the job file"
    assert job.data.arguments == {"nested": ["a-one-two", {"plain": "${X}"}]}
    assert (job.engine.storage_path, job.search.memory_limit) == ("s3://b/x", 10**9)
    kept = yaml.safe_load(job.text)
    assert kept["search"]["storage"] == changes["search.storage"]
    assert kept["search"]["controller"]["name"] == "${CONTROLLER}"
    assert kept["search"]["allocations"] == ["${ALLOCATION}"]
    assert kept["data"]["path"] == f"{tmp_path}/${{DATA}}/digits"
    assert kept["data"]["arguments"] == {"nested": ["a-${X}-${Y:-two}", {"plain": "$${X}"}]}
    assert kept["engine"]["storage_path"] == "s3://${BUCKET}/x"
    assert kept["search"]["memory_limit"] == 10**9, "read with its unit"
    assert "hunter2" not in job.text
    reread = again(job, tmp_path)
    assert reread.model_dump() == job.model_dump()
    assert reread.engine == job.engine
    assert reread.text == job.text


def test_all_that_is_not_set_is_one_error(tmp_path: Path) -> None:
    path = write_job(tmp_path / "job.yaml", {"search.storage": "${NO_SUCH_URL}", "data.path": "${NO_SUCH}/x"})
    with pytest.raises(UnsetVariableError) as caught:
        load_job(path)
    assert str(caught.value) == (
        f"{path}: environment variables not set: NO_SUCH (data.path), NO_SUCH_URL (search.storage). Set them, write "
        "${NAME:-default}, or $${ for a plain ${"
    )


@pytest.mark.parametrize("text", ["${", "${}", "${1x}", "${a b}", "${X", "x${X:-${Y}}"])
def test_what_names_no_variable_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("Y", "y")
    with pytest.raises(ConfigError, match=r"job: data\.path: \$\{ begins no \$\{NAME\}; write \$\$\{ for a plain"):
        expanded({"data": {"path": text}}, "job")


def test_a_default_holds_where_nothing_or_the_empty_text_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.setenv("FULL", "x")
    assert expanded(["${EMPTY}", "${EMPTY:-d}", "${FULL:-d}", "${NO_SUCH:-d}", "${NO_SUCH:-}"], "job")[0] == [
        "", "d", "x", "d", "",
    ]  # fmt: skip


@given(st.text(st.sampled_from("${}ab:-"), max_size=12))
def test_any_text_survives_being_written(text: str) -> None:
    assert expanded(written({"x": text}, {}), "file") == ({"x": text}, {})


def test_a_value_that_was_replaced_is_not_written_as_it_was_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADDRESS", "h:1")
    job = load_job(write_job(tmp_path / "job.yaml", {"engine": {"name": "ray", "address": "${ADDRESS}"}}))
    changed = job.model_copy(update={"engine": job.engine.model_copy(update={"address": "auto"})})
    assert yaml.safe_load(changed.text)["engine"]["address"] == "auto"
    assert yaml.safe_load(job.text)["engine"]["address"] == "${ADDRESS}"


def test_a_secret_in_clear_text_is_left_out_and_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = validated(
        Job,
        {
            **JOB,
            "search": {"storage": URL.format("hunter2")},
            "data": {"name": "digits", "arguments": {"token": "hunter3", "url": "redis://:hunter4@h", "path": "${X}"}},
            "engine": {"name": "ray", "storage_path": "s3://id:hunter5@b/x"},
        },
        "job",
    )
    assert "hunter" not in job.text
    with pytest.raises(UnsetVariableError) as caught:
        again(job, tmp_path)
    assert "AUTOPRUNE_STORAGE_SECRET (search.storage)" in str(caught.value)
    assert "the secret that the run was started with in clear text, as it stood there (it is not kept)" in str(
        caught.value
    )
    for name, value in {"STORAGE": "2", "TOKEN": "3", "URL": "4", "STORAGE_PATH": "5"}.items():
        monkeypatch.setenv(f"AUTOPRUNE_{name}_SECRET", f"hunter{value}")
    reread = again(job, tmp_path)
    assert reread.model_dump() == job.model_dump()
    assert reread.engine == job.engine
    assert reread.text == job.text


def test_two_secrets_of_one_value_have_names_of_their_own() -> None:
    data = {"storage": "postgresql://u:one@h/d?sslpassword=two", "other": {"storage": "redis://:one@h"}}
    assert written(data, {}) == {
        "storage": "postgresql://u:${AUTOPRUNE_STORAGE_SECRET}@h/d?sslpassword=${AUTOPRUNE_STORAGE_SECRET_2}",
        "other": {"storage": "redis://:${AUTOPRUNE_STORAGE_SECRET}@h"},
    }


def test_a_fingerprint_is_that_of_the_job_without_its_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fingerprint(storage: str | None) -> str:
        return job_fingerprint(load_job(write_job(tmp_path / "job.yaml", {"search.storage": storage})))

    monkeypatch.setenv("PG", "third")
    monkeypatch.setenv("PG_URL", URL.format("fourth"))
    given = [URL.format("first"), URL.format("second"), URL.format("${PG}"), "${PG_URL}"]
    assert len({fingerprint(storage) for storage in given}) == 1
    assert fingerprint("postgresql://user:first@other/name") != fingerprint(given[0])
    assert fingerprint("sqlite:///a.db") != fingerprint("sqlite:///b.db")


def test_a_job_that_is_not_yaml_is_not_quoted(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    for broken in ('search: {storage: "postgresql://u:hunter2@h/n', "a: [postgresql://u:hunter2@h/n", "x: hunter2: 1"):
        path.write_text(broken)
        with pytest.raises(ConfigError, match="is not valid YAML") as caught:
            load_job(path)
        assert "hunter2" not in str(caught.value)


def test_a_value_that_is_refused_is_not_quoted_with_its_secret() -> None:
    for wrong in ({"search": {"storage": [URL.format("hunter 2")]}}, {"search": {"trials": URL.format("hunter 2")}},
                  {"training": URL.format("hunter 2")}):  # fmt: skip
        with pytest.raises(ConfigError) as caught:
            validated(Job, {**JOB, **wrong}, "job")
        assert "hunter" not in str(caught.value)
        assert "***" in str(caught.value)
