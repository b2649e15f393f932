"""What a resumed run keeps of the engine that it began on; trainings are done here, whatever engine is asked for."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny import Perceptron, perceptron, regression, write_job
from typer.testing import CliRunner

import autoprune
from autoprune.cli.main import app
from autoprune.config.engine import EngineOptions
from autoprune.engines.local import LocalEngine
from autoprune.errors import ConfigError, RunError
from autoprune.pipeline import driver

ASHA = {"name": "ray", "workers": 1, "scheduler": "asha"}
BOTH = {"name": "ray", "scheduler": "hyperband", "time_limit": 60, "memory_limit": "4GB"}


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> list[EngineOptions]:
    """The engines that are asked for; all of them are the local one."""
    options: list[EngineOptions] = []

    def make(given: EngineOptions, *, device: str) -> LocalEngine:
        options.append(given)
        return LocalEngine()

    monkeypatch.setattr(driver, "make_engine", make)
    return options


@pytest.fixture(scope="module")
def model() -> Perceptron:
    return perceptron()


def search(run: Path, model: Perceptron, **changes: Any) -> Any:
    return regression(run, model, **{"verdict": {"seeds": 0, "random_candidates": 2}, "trials": 2} | changes)


def begun(run: Path, model: Perceptron, **changes: Any) -> Path:
    """A run, or a family, that was stopped before its end."""
    search(run, model, **changes)
    for result in run.rglob("result.json"):
        result.unlink()
    return run


def edit(path: Path, change: Any) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("first", "then", "said"),
    [
        (ASHA, "local", r"on the local engine: it was begun with scheduler: asha, which the local engine does"),
        (BOTH, "local", r"begun with scheduler: hyperband, time_limit: 60\.0, memory_limit: 4000000000, which the"),
        ({"name": "ray", "time_limit": 5}, "local", r"begun with time_limit: 5\.0, which the local .*--engine ray"),
        ("local", ASHA, r"with scheduler: asha: it was begun with scheduler: none, and .* Leave scheduler out"),
        (ASHA, {"name": "ray", "scheduler": "none"}, r"with scheduler: none: it was begun with scheduler: asha"),
        (ASHA, {"name": "ray", "scheduler": "hyperband"}, r"with scheduler: hyperband: it was begun with scheduler: a"),
        ("local", {"name": "ray", "memory_limit": "1GB"}, r"memory_limit: 1000000000: it was .* memory_limit: none"),
        (BOTH, {**BOTH, "time_limit": None}, r"with time_limit: none: it was begun with time_limit: 60\.0, and"),
    ],
)  # fmt: skip
def test_a_run_is_not_resumed_with_other_stopping(
    tmp_path: Path, model: Perceptron, first: Any, then: Any, said: str, asked: list[EngineOptions]
) -> None:
    run = begun(tmp_path / "run", model, engine=first)
    before = content(run)
    asked.clear()
    with pytest.raises(RunError, match=rf"{run} cannot be resumed .*{said}.* start a new run"):
        search(run, model, resume=True, engine=then)
    assert content(run) == before
    assert asked == [], "nothing was opened"


@pytest.mark.parametrize(
    ("first", "then", "kept", "told"),
    [
        ("local", "ray", {}, False),
        (ASHA, {**ASHA, "workers": 3}, {"scheduler": "asha"}, False),
        (ASHA, {"name": "ray", "address": "auto"}, {"scheduler": "asha"}, True),
        (BOTH, "ray", {"scheduler": "hyperband", "time_limit": 60, "memory_limit": 4_000_000_000}, True),
        ({"name": "ray", "workers": 2, "retries": 5}, "local", {}, False),
        ({"name": "ray", "scheduler": "none"}, {"name": "local", "scheduler": "none"}, {}, False),
    ],
)
def test_what_an_engine_can_do_is_kept_as_it_was_begun(
    tmp_path: Path, model: Perceptron, first: Any, then: Any, kept: dict[str, Any], told: bool,
    asked: list[EngineOptions], capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run = begun(tmp_path / "run", model, engine=first)
    search(run, model, resume=True, engine=then, progress="plain")
    assert asked[-1].of_trials == EngineOptions.model_validate({"name": "ray", **kept}).of_trials
    given = {"name": then} if isinstance(then, str) else then
    assert asked[-1].model_dump(include=set(given)) == given, "the rest is as the call says"
    assert ("as it was begun" in capfd.readouterr().err) == told
    assert (run / "result.json").is_file()


def test_a_finished_run_is_read_on_any_engine(tmp_path: Path, model: Perceptron, asked: list[EngineOptions]) -> None:
    first = search(tmp_path / "run", model, engine=ASHA)
    assert search(tmp_path / "run", model, resume=True).widths == first.widths
    assert asked[-1] == EngineOptions()


def test_all_runs_of_a_family_keep_theirs(tmp_path: Path, model: Perceptron, asked: list[EngineOptions]) -> None:
    budgets = {"constraints": {"flops": ["60%", "40%"]}}
    run = begun(tmp_path / "run", model, engine=ASHA, **budgets)
    for directory in (run, *(path for path in run.iterdir() if path.is_dir())):
        if (directory / "run.json").is_file():
            assert json.loads((directory / "run.json").read_text())["trial_options"]["scheduler"] == "asha"
    with pytest.raises(RunError, match="begun with scheduler: asha, which the local engine does not have"):
        search(run, model, resume=True, **budgets)
    search(run, model, resume=True, engine="ray", **budgets)
    assert asked[-1].scheduler == "asha"
    assert len(list(run.rglob("result.json"))) == 2


def test_a_run_without_a_record_goes_on_with_those_of_its_job_file_and_says_so(
    tmp_path: Path, model: Perceptron, asked: list[EngineOptions], capfd: pytest.CaptureFixture[str]
) -> None:
    run = begun(tmp_path / "run", model, engine=ASHA)
    edit(run / "run.json", lambda entries: entries.pop("trial_options"))
    with pytest.raises(RunError, match="begun with scheduler: asha, which the local engine does not have"):
        search(run, model, resume=True)
    search(run, model, resume=True, engine="ray", progress="plain")
    assert asked[-1].scheduler == "asha"
    told = capfd.readouterr().err
    assert "the run keeps no record of scheduler, time_limit, memory_limit" in told
    assert "(scheduler: asha, time_limit: none, memory_limit: none)" in told


@pytest.mark.parametrize("record", [3, {"scheduler": "best"}, {"schedule": "asha"}])
def test_a_damaged_record_is_one_clear_error(tmp_path: Path, model: Perceptron, record: Any) -> None:
    run = begun(tmp_path / "run", model)
    edit(run / "run.json", lambda entries: entries.update(trial_options=record))
    with pytest.raises((RunError, ConfigError), match=r"run\.json.*(trial_options|scheduler|schedule)"):
        search(run, model, resume=True)


def test_a_run_from_a_job_file_keeps_its_own_whatever_its_job_file_says_now(
    tmp_path: Path, asked: list[EngineOptions], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parents[1]), *sys.path])
    run, changes = tmp_path / "run", {"engine": ASHA, "verdict.seeds": 0, "search.trials": 2}
    call = CliRunner().invoke
    assert call(app, ["search", str(write_job(tmp_path / "job.yaml", changes)), "--run-dir", str(run)]).exit_code == 0
    (run / "result.json").unlink()
    error = call(app, ["resume", str(run), "--engine", "local"]).exception
    assert isinstance(error, RunError)
    assert "begun with scheduler: asha, which the local engine does not have" in str(error)
    with pytest.raises(RunError, match="begun with scheduler: asha"):
        autoprune.resume(run, engine="local")
    job = yaml.safe_load((run / "job.yaml").read_text())
    for edited, said in (({**ASHA, "scheduler": "none"}, "with scheduler: none"), ("local", "on the local engine")):
        (run / "job.yaml").write_text(yaml.safe_dump({**job, "engine": edited}))
        error = call(app, ["resume", str(run)]).exception
        assert isinstance(error, RunError), error
        assert f"cannot be resumed {said}: it was begun with scheduler: asha" in str(error)
    assert call(app, ["resume", str(run), "--workers", "2"]).exit_code == 0
    assert (asked[-1].name, asked[-1].scheduler, asked[-1].workers) == ("ray", "asha", 2)
