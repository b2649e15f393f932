"""What a resumed run keeps of early stopping and limits; evaluations are done here, whatever engine is asked for."""

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
from autoprune.config.job import Job
from autoprune.config.stopping import NEVER, StoppingOptions
from autoprune.deprecation import MovedWarning
from autoprune.engines import make_engine as real_make
from autoprune.engines.local import LocalEngine
from autoprune.errors import ConfigError, RunError
from autoprune.pipeline import driver
from autoprune.pipeline.fingerprints import JOB_FORMAT, job_fingerprint

ASHA = {"early_stopping": "asha"}
BOTH = {"early_stopping": "hyperband", "time_limit": 60, "memory_limit": "4GB"}
RAY: dict[str, Any] = {"engine": "ray"}
THEN = {"inherit": ["bn_recalibration"], "allocations": ["global_threshold"]}
"""What was usual before format 3."""


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[EngineOptions, StoppingOptions]]:
    """The engines and the stopping that are asked for; all engines are the local one."""
    options: list[tuple[EngineOptions, StoppingOptions]] = []

    def make(given: EngineOptions, *, stopping: StoppingOptions = NEVER, device: str = "cpu") -> LocalEngine:
        options.append((given, stopping))
        return LocalEngine() if given.name == "ray" else real_make(given, stopping=stopping, device=device)  # type: ignore[return-value]

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
    data.pop("sha256", None)  # of run.json itself, which a change by hand would not fit
    change(data)
    path.write_text(json.dumps(data))


def content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def of_format_1(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Turn a run into one that began when the engine had these options, as that version wrote it."""

    def rewrite(run: Path, engine: dict[str, Any], *, recorded: bool = True) -> None:
        was = {"scheduler": "none", "time_limit": None, "memory_limit": None} | {
            key: value for key, value in engine.items() if key in ("scheduler", "time_limit", "memory_limit")
        }
        for mark in run.rglob("run.json"):
            edit(mark, lambda entries: entries.pop("job_format"))
            if recorded:
                edit(mark, lambda entries: entries.update(trial_options=was))
            job = yaml.safe_load((mark.parent / "job.yaml").read_text())
            job["search"].pop("inherit", None)  # it was not written where it was usual
            (mark.parent / "job.yaml").write_text(yaml.safe_dump({**job, "engine": engine}))
            began = job_fingerprint(Job.model_validate(job))
            edit(mark, lambda entries, began=began: entries["fingerprints"].update(job=began))

    return rewrite


@pytest.mark.parametrize(
    ("first", "then", "said"),
    [
        (RAY | BOTH, {}, r"on the local engine: it was begun with time_limit: 60, memory_limit: 4000000000, which"),
        (RAY | {"time_limit": "5 s"}, {}, r"begun with time_limit: 5, which that engine .* \(--engine ray\)"),
        ({}, ASHA, r"with early_stopping: asha: it was begun with early_stopping: none, .* Leave early_stopping out"),
        (ASHA, {"early_stopping": "none"}, r"with early_stopping: none: it was begun with early_stopping: asha"),
        (ASHA, RAY | {"early_stopping": "hyperband"}, r"with early_stopping: hyperband: it was begun"),
        ({}, RAY | {"memory_limit": "1GB"}, r"memory_limit: 1000000000: it was .* memory_limit: none"),
        (RAY | BOTH, RAY | BOTH | {"time_limit": 61}, r"with time_limit: 61: it was begun with time_limit: 60, and"),
    ],
)  # fmt: skip
def test_a_run_is_not_resumed_with_other_stopping(
    tmp_path: Path, model: Perceptron, first: Any, then: Any, said: str, asked: list[Any]
) -> None:
    run = begun(tmp_path / "run", model, **first)
    before = content(run)
    asked.clear()
    with pytest.raises(RunError, match=rf"{run} cannot be resumed .*{said}.* start a new run"):
        search(run, model, resume=True, **then)
    assert content(run) == before
    assert asked == [], "nothing was opened"


@pytest.mark.parametrize(
    ("first", "then", "told"),
    [
        ({}, RAY, False),
        (ASHA, ASHA, False),
        (ASHA, RAY, True),
        (RAY | ASHA, {}, True),
        (RAY | BOTH, {"engine": {"name": "ray", "address": "auto"}}, True),
        (RAY | BOTH, RAY | {"time_limit": "1 min", "memory_limit": 4 * 10**9}, True),
        ({"engine": {"name": "ray", "workers": 2, "retries": 5}}, {}, False),
    ],
)
def test_stopping_goes_on_as_it_was_begun_on_any_engine_that_can(
    tmp_path: Path, model: Perceptron, first: Any, then: Any, told: bool, asked: list[Any],
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run = begun(tmp_path / "run", model, **first)
    began = asked[-1][1]
    search(run, model, resume=True, progress="plain", **then)
    engine, stopping = asked[-1]
    assert stopping == began
    assert engine == EngineOptions.model_validate(then.get("engine", "local"))
    assert ("as it was begun" in capfd.readouterr().err) == told
    assert (run / "result.json").is_file()


def test_stopping_is_part_of_what_a_run_is(tmp_path: Path, model: Perceptron) -> None:
    prints = []
    for number, given in enumerate(({}, {"early_stopping": "none"}, ASHA, RAY | ASHA, RAY | ASHA | {"time_limit": 9})):
        run = begun(tmp_path / str(number), model, **given)
        prints.append(json.loads((run / "run.json").read_text())["fingerprints"]["job"])
    plain, none, here, there, limited = prints
    assert plain == none != here == there != limited != plain


def test_a_finished_run_is_read_on_any_engine(tmp_path: Path, model: Perceptron, asked: list[Any]) -> None:
    first = search(tmp_path / "run", model, **RAY | BOTH)
    assert search(tmp_path / "run", model, resume=True).widths == first.widths
    assert asked[-1] == (EngineOptions(), NEVER)


def test_all_runs_of_a_family_keep_theirs(tmp_path: Path, model: Perceptron, asked: list[Any]) -> None:
    budgets = {"constraints": {"flops": ["60%", "40%"]}}
    run = begun(tmp_path / "run", model, call=autoprune.sweep, **RAY, **BOTH, **budgets)
    with pytest.raises(RunError, match="begun with time_limit: 60, memory_limit: 4000000000, which that engine"):
        search(run, model, call=autoprune.sweep, resume=True, **budgets)
    search(run, model, call=autoprune.sweep, resume=True, **budgets, **RAY)
    assert asked[-1][1] == StoppingOptions.model_validate(BOTH)
    assert len(list(run.rglob("result.json"))) == 2


def test_what_an_engine_cannot_keep_to_is_refused_before_anything_is_written(tmp_path: Path, model: Perceptron) -> None:
    said = r"search has time_limit: 60, .* local engine cannot keep to, .* set engine: ray .* or leave time_limit"
    with pytest.raises(ConfigError, match=said):
        search(tmp_path / "run", model, time_limit=60)
    assert not (tmp_path / "run").exists()


def test_where_nothing_can_be_stopped_that_is_told(
    tmp_path: Path, model: Perceptron, capfd: pytest.CaptureFixture[str]
) -> None:
    search(tmp_path / "run", model, progress="plain", **ASHA)
    assert "early_stopping: asha stops nothing here: the evaluator 'inherited' does not train" in capfd.readouterr().err


@pytest.mark.parametrize("recorded", [True, False])
def test_a_run_of_format_1_goes_on_with_what_its_engine_had(
    tmp_path: Path, model: Perceptron, asked: list[Any], of_format_1: Any, recorded: bool,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run = begun(tmp_path / "run", model, **THEN)  # the fingerprint of then: without stopping
    of_format_1(run, {"name": "ray", "scheduler": "asha", "time_limit": 60}, recorded=recorded)
    with pytest.raises(RunError, match="begun with time_limit: 60, which that engine cannot keep to"):
        search(run, model, resume=True)
    with pytest.raises(RunError, match="with early_stopping: none: it was begun with early_stopping: asha"):
        search(run, model, resume=True, early_stopping="none", **RAY)
    search(run, model, resume=True, progress="plain", **RAY)
    assert asked[-1][1] == StoppingOptions(early_stopping="asha", time_limit=60)
    told = capfd.readouterr().err
    assert ("the run keeps no record of early_stopping, time_limit, memory_limit" in told) != recorded
    assert ("(early_stopping: asha, time_limit: 60, memory_limit: none)" in told) != recorded


def test_a_run_of_format_1_on_asha_alone_goes_on_here(
    tmp_path: Path, model: Perceptron, asked: list[Any], of_format_1: Any
) -> None:
    run = begun(tmp_path / "run", model, **THEN)
    of_format_1(run, {"name": "ray", "scheduler": "asha"})
    search(run, model, resume=True)
    assert asked[-1] == (EngineOptions(), StoppingOptions(early_stopping="asha"))


def test_a_run_of_format_2_is_not_taken_for_one_of_format_1(tmp_path: Path, model: Perceptron) -> None:
    run = begun(tmp_path / "run", model)
    job = yaml.safe_load((run / "job.yaml").read_text())
    job["search"]["early_stopping"] = "asha"
    (run / "job.yaml").write_text(yaml.safe_dump(job))
    with pytest.raises(RunError, match=r"cannot be resumed: job of the run and of this call differ"):
        search(run, model, resume=True)


@pytest.mark.parametrize("mark", [JOB_FORMAT + 1, 0, "two"])
def test_a_run_of_a_later_format_is_refused(tmp_path: Path, model: Perceptron, mark: Any) -> None:
    run = begun(tmp_path / "run", model)
    edit(run / "run.json", lambda entries: entries.update(job_format=mark))
    with pytest.raises(RunError, match=rf"its job_format is {mark!r}, and this version knows up to {JOB_FORMAT}"):
        search(run, model, resume=True)


@pytest.mark.parametrize("record", [3, {"scheduler": "best"}, {"schedule": "asha"}])
def test_a_damaged_record_is_one_clear_error(tmp_path: Path, model: Perceptron, record: Any, of_format_1: Any) -> None:
    run = begun(tmp_path / "run", model)
    of_format_1(run, {"name": "local"})
    edit(run / "run.json", lambda entries: entries.update(trial_options=record))
    with pytest.raises((RunError, ConfigError), match=r"run\.json.*(trial_options|early_stopping|schedule)"):
        search(run, model, resume=True)


def test_old_keys_of_the_engine_are_moved_with_a_warning(tmp_path: Path, model: Perceptron, asked: list[Any]) -> None:
    engine = {"name": "ray", "workers": 1, "scheduler": "asha", "time_limit": 60}
    with pytest.warns(MovedWarning, match=r"engine\.\w+ has moved \(2026-11-29\): use search\.\w+") as seen:
        run = begun(tmp_path / "run", model, engine=engine)
    assert len(seen) == 2
    assert asked[-1] == (EngineOptions(name="ray", workers=1), StoppingOptions(early_stopping="asha", time_limit=60))
    assert yaml.safe_load((run / "job.yaml").read_text())["engine"] == {"name": "ray", "workers": 1}
    with (
        pytest.warns(MovedWarning),
        pytest.raises(RunError, match="with time_limit: none: it was begun with time_limi"),
    ):
        search(run, model, resume=True, engine={**engine, "time_limit": None})
    with pytest.raises(ConfigError, match=r"engine\.scheduler is asha and search\.early_stopping is hyperband"):
        search(run, model, resume=True, engine=engine, early_stopping="hyperband")


def test_a_run_from_a_job_file_keeps_its_own_whatever_is_said_later(
    tmp_path: Path, asked: list[Any], monkeypatch: pytest.MonkeyPatch, of_format_1: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parents[1]), *sys.path])
    run, changes = tmp_path / "run", {"engine": "ray", "verdict.seeds": 0, "search.trials": 2}
    call = CliRunner().invoke
    job = write_job(tmp_path / "job.yaml", changes | {"search.time_limit": "10min"})
    assert call(app, ["search", str(job), "--run-dir", str(run)]).exit_code == 0
    (run / "result.json").unlink()
    error = call(app, ["resume", str(run), "--engine", "local"]).exception
    assert isinstance(error, RunError)
    assert "begun with time_limit: 600, which that engine cannot keep to" in str(error)
    with pytest.raises(RunError, match="begun with time_limit: 600"):
        autoprune.resume(run, engine="local")
    with pytest.warns(MovedWarning), pytest.raises(RunError, match="with early_stopping: asha: it was begun with"):
        autoprune.resume(run, engine={"name": "ray", "scheduler": "asha"})
    assert call(app, ["resume", str(run), "--workers", "2"]).exit_code == 0
    engine, stopping = asked[-1]
    assert (engine.name, engine.workers, stopping) == ("ray", 2, StoppingOptions(time_limit=600))


def test_the_job_file_of_a_run_of_format_1_warns_nobody(
    tmp_path: Path, asked: list[Any], monkeypatch: pytest.MonkeyPatch, of_format_1: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parents[1]), *sys.path])
    run, call = tmp_path / "run", CliRunner().invoke
    then = {f"search.{key}": value for key, value in THEN.items()}
    job = write_job(tmp_path / "job.yaml", {"verdict.seeds": 0, "search.trials": 2, **then})
    assert call(app, ["search", str(job), "--run-dir", str(run)]).exit_code == 0
    (run / "result.json").unlink()
    of_format_1(run, {"name": "ray", "scheduler": "asha"})
    edited = yaml.safe_load((run / "job.yaml").read_text())
    (run / "job.yaml").write_text(yaml.safe_dump({**edited, "engine": {"name": "ray", "scheduler": "hyperband"}}))
    error = call(app, ["resume", str(run)]).exception
    assert isinstance(error, RunError), error
    assert "with early_stopping: hyperband: it was begun with early_stopping: asha" in str(error)
    (run / "job.yaml").write_text(yaml.safe_dump({**edited, "engine": {"name": "ray", "scheduler": "asha"}}))
    autoprune.resume(run, engine="local")  # MovedWarnings are errors here
    assert asked[-1][1].early_stopping == "asha"
