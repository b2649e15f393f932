"""Whole runs with secrets in their jobs: no file and no line that is shown holds one, and the runs can be resumed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny import closeness, perceptron, regression, write_job
from torch import nn

import autoprune
from autoprune.cli import main as cli
from autoprune.config.job import load_job
from autoprune.errors import RunError, UnsetVariableError
from autoprune.pipeline import driver
from autoprune.pipeline.fingerprints import job_fingerprint
from autoprune.trials.ledger import open_storage
from autoprune.trials.run_directory import RunDirectory

SECRET = "hunter2"
HERE = Path(__file__).parents[1]


def url_of(folder: Path, secret: str = SECRET) -> str:
    return f"sqlite:///file:{folder}/trials.db?uri=true&password={secret}"


def holding(folder: Path, secret: str = SECRET) -> list[str]:
    """Files with the secret in clear text."""
    return [str(path) for path in folder.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., str]:
    """Call the command line in this process; what it shows."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(HERE), *sys.path])

    def call(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["autoprune", *map(str, arguments)])
        with pytest.raises(SystemExit):
            cli.main()
        shown = "".join(capfd.readouterr())
        assert SECRET not in shown
        return shown

    return call


def unfinish(run: Path) -> None:
    for name in ("result.json", "report.html", "report.md"):
        (run / name).unlink()


class Telling:
    """A score function that fails once, and says what it knows."""

    def __init__(self, url: str) -> None:
        self.url, self.calls = url, 0

    def __call__(self, network: nn.Module) -> float:
        self.calls += 1
        if self.calls == 5:
            raise ConnectionError(f"could not connect to {self.url}")
        return closeness(network)


def test_no_file_of_a_run_from_python_holds_a_secret(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    url, model = url_of(tmp_path), perceptron()
    given: dict[str, Any] = {
        "trials": 6,
        "score_func": Telling(url),
        "train_func": None,
        "verdict": None,
        "storage": url,
    }
    result = regression(tmp_path / "run", model, progress="plain", **given)
    (failed,) = [trial for trial in result.trials if trial.error]
    assert f"ConnectionError: could not connect to {url_of(tmp_path, '***')}" in (failed.error or "")
    assert holding(tmp_path) == []
    assert SECRET not in "".join(capfd.readouterr())
    assert str(tmp_path / "trials.db") in (tmp_path / "run" / "report.md").read_text(), "the rest of the URL is shown"
    unfinish(tmp_path / "run")
    given |= {"storage": url_of(tmp_path, "hunter3"), "score_func": Telling(url)}
    resumed = regression(tmp_path / "run", model, resume=True, **given)
    assert resumed.widths == result.widths, "another password is no other job"
    assert holding(tmp_path, "hunter3") == []


def test_a_family_keeps_no_secret_and_finds_its_scores(tmp_path: Path) -> None:
    model = perceptron()
    given = {"constraints": {"flops": ["60%", "40%"]}, "verdict": {"seeds": 0, "random_candidates": 2}, "trials": 2}
    family = regression(tmp_path / "family", model, call=autoprune.sweep, storage=url_of(tmp_path), **given)
    assert holding(tmp_path) == []
    for part in family:  # type: ignore[attr-defined]
        unfinish(part.directory)
    regression(tmp_path / "family", model, call=autoprune.sweep, storage=url_of(tmp_path), resume=True, **given)
    assert not list(tmp_path.rglob("scores.log"))


def test_a_job_with_a_clear_secret_is_resumed_once_it_is_set(
    tmp_path: Path, shell: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work").mkdir()
    job = write_job(tmp_path / "job.yaml", {"search.storage": url_of(tmp_path), "verdict.seeds": 0})
    run = tmp_path / "work" / "run"
    shown = shell("search", job, "--run-dir", run, "--progress", "plain")
    assert "the secret in search.storage is not kept: set AUTOPRUNE_STORAGE_SECRET to it to resume the run" in shown
    assert holding(tmp_path) == [str(job)], "the user's own file"
    shell("report", run)
    unfinish(run)
    shown = shell("resume", run, "--progress", "plain")
    assert f"error: {run} cannot be resumed yet: " in shown
    assert "environment variable not set: AUTOPRUNE_STORAGE_SECRET (search.storage)" in shown
    with pytest.raises(RunError, match="AUTOPRUNE_STORAGE_SECRET"):
        autoprune.resume(run)
    monkeypatch.setenv("AUTOPRUNE_STORAGE_SECRET", SECRET)
    assert "report:" in shell("resume", run, "--progress", "plain")
    assert holding(tmp_path) == [str(job)]
    assert (run / "result.json").is_file()


def test_values_of_the_environment_stay_there_and_serve_resume_report_and_export(
    tmp_path: Path, shell: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DB_URL", url_of(tmp_path))
    monkeypatch.setenv("FACTORY", "Convolutions")
    changes = {"search.storage": "${DB_URL}", "model.factory": "tiny:${FACTORY}", "verdict.seeds": 0}
    job, run = write_job(tmp_path / "job.yaml", changes), tmp_path / "run"
    assert "AUTOPRUNE_" not in shell("search", job, "--run-dir", run, "--progress", "plain")
    assert holding(tmp_path) == []
    assert yaml.safe_load((run / "job.yaml").read_text())["search"]["storage"] == "${DB_URL}"
    assert "storage: ${DB_URL}" in (run / "report.md").read_text()
    assert type(autoprune.load(run / "export", packages=["tiny"])).__name__ == "Convolutions"
    unfinish(run)
    monkeypatch.setenv("DB_URL", url_of(tmp_path, "changed"))
    assert "report:" in shell("resume", run)
    monkeypatch.setenv("DB_URL", f"sqlite:///{tmp_path}/other.db")
    unfinish(run)
    shown = shell("resume", run)
    assert "job of the run and of this call differ" in shown
    assert "its job.yaml takes values from the environment: FACTORY, DB_URL" in shown
    monkeypatch.delenv("FACTORY")
    with pytest.raises(UnsetVariableError, match="FACTORY"):
        autoprune.load(run / "export", packages=["tiny"])


def test_a_run_that_was_begun_with_its_secret_in_clear_text_goes_on_and_shows_it_no_more(
    tmp_path: Path, shell: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = write_job(tmp_path / "job.yaml", {"search.storage": url_of(tmp_path), "verdict.seeds": 0})
    run = tmp_path / "run"
    shell("search", job, "--run-dir", run)
    clear = {**yaml.safe_load((run / "job.yaml").read_text())}
    clear["search"]["storage"] = url_of(tmp_path)
    (run / "job.yaml").write_text(yaml.safe_dump(clear))
    begun = load_job(run / "job.yaml")
    monkeypatch.setattr("autoprune.pipeline.fingerprints.masked", lambda data, **_: data)
    old = job_fingerprint(begun)
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(HERE), *sys.path])
    with RunDirectory.reopen(run) as directory:
        directory.update_run(fingerprints={**directory.recorded("fingerprints"), "job": old})
    driver.write_all_reports(run)
    assert holding(run) == [str(run / "job.yaml")]
    unfinish(run)
    driver.resume_job(run, progress="silent")
    assert holding(run) == [str(run / "job.yaml")]
    clear["seed"] = 7
    (run / "job.yaml").write_text(yaml.safe_dump(clear))
    unfinish(run)
    with pytest.raises(RunError, match=r"job, weights of the run .* differ; restore") as caught:
        driver.resume_job(run, progress="silent")
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql+psycopg2://user:{SECRET}@127.0.0.1:1/name",
        f"postgresql+nothing://user:{SECRET}@127.0.0.1/name",
        f"redis://:{SECRET}@127.0.0.1",
        f"postgresql:/user:{SECRET}@127.0.0.1/name",
        f"sqlite:////no/such/folder/x.db?password={SECRET}",
    ],
)
def test_a_storage_that_cannot_be_opened_says_so_without_its_secret(url: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot be opened") as caught:
        open_storage(url, tmp_path / "journal.log")
    assert SECRET not in str(caught.value)
    assert url.replace(SECRET, "***") in str(caught.value)


def test_what_a_driver_says_is_masked_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(url: str) -> None:
        raise OSError(f"login as user with {SECRET} was refused")

    monkeypatch.setattr("autoprune.trials.ledger.open_database", fail)
    with pytest.raises(RunError, match=r"login as user with \*\*\* was refused") as caught:
        open_storage(f"postgresql://user:{SECRET}@h/name", tmp_path / "journal.log")
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__, "nor does its traceback"


def test_a_missing_driver_is_named_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    with pytest.raises(RunError, match=r"pip install psycopg2-binary"):
        open_storage("postgresql+psycopg2://user@h/name", tmp_path / "journal.log")
