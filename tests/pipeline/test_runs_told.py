"""Callbacks of whole runs: what they hear, and that a run is the same whoever listens."""

from __future__ import annotations

import json
import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny import regression, write_job

import autoprune
from autoprune import registry
from autoprune.config.job import Job, load_job
from autoprune.errors import ConfigError
from autoprune.pipeline import driver
from autoprune.pipeline.fingerprints import job_fingerprint
from autoprune.progress.base import SilentProgress
from autoprune.progress.callbacks import Callback, PhaseEnded, RunEnded, RunStarted, TrialEnded

PHASES = ["base network", "search", "re-scoring", "uniform curve", "final trainings", "latency"]
HEARD: list[Any] = []
"""What those that a job names hear."""


class Listener(Callback):
    """Keeps every event, or stops the run at a trial.

    Args:
        stop: number of the trial.
    """

    def __init__(self, stop: int | None = None) -> None:
        self.heard: list[Any] = []
        self.stop = stop

    def run_started(self, event: RunStarted) -> None:
        self.heard.append(event)

    def trial_ended(self, event: TrialEnded) -> None:
        self.heard.append(event)
        if event.number == self.stop:
            raise KeyboardInterrupt

    def phase_ended(self, event: PhaseEnded) -> None:
        self.heard.append(event)

    def run_ended(self, event: RunEnded) -> None:
        self.heard.append(event)

    def close(self) -> None:
        self.heard.append("closed")


class NamedListener(Listener):
    """Keeps every event where a test finds it."""

    def __init__(self) -> None:
        super().__init__()
        self.heard = HEARD


class Fussy(Callback):
    """Fails at everything."""

    def run_started(self, event: RunStarted) -> None:
        raise ValueError("I do not like this job")


class Keyed(Callback):
    """Needs a secret.

    Args:
        token: the secret.
    """

    def __init__(self, token: str) -> None:
        assert token == "hush"


def kinds(heard: list[Any]) -> list[str]:
    return [event if isinstance(event, str) else type(event).__name__ for event in heard]


def trials(heard: list[Any]) -> list[int]:
    return [event.number for event in heard if isinstance(event, TrialEnded)]


def results(result: autoprune.SearchResult) -> list[tuple[Any, ...]]:
    return [(trial.number, trial.widths, trial.score) for trial in result.trials]


def test_a_callback_hears_the_run_in_order_and_in_plain_values(tmp_path: Path) -> None:
    listener = Listener()
    result = regression(tmp_path / "run", callbacks=[listener])
    started, ended = listener.heard[0], listener.heard[-2]
    assert kinds(listener.heard) == [
        "RunStarted",
        "PhaseEnded",
        *["TrialEnded"] * len(result.trials),
        *["PhaseEnded"] * 5,
        "RunEnded",
        "closed",
    ]
    assert [event.name for event in listener.heard if isinstance(event, PhaseEnded)] == PHASES
    assert started.directory == str(tmp_path / "run")
    assert started.job == yaml.safe_load((tmp_path / "run/job.yaml").read_text())
    assert (started.resumed, started.job["search"]["trials"]) == (False, 4)
    told = [(e.number, e.widths, e.score) for e in listener.heard if isinstance(e, TrialEnded)]
    assert sorted(told) == results(result)
    last = [e for e in listener.heard if isinstance(e, TrialEnded)][-1]
    assert last.done == last.total == len(result.trials)
    assert result.verdict is not None
    assert (ended.sentence, ended.widths) == (result.verdict.sentence, result.widths)
    assert not (tmp_path / "run/tensorboard").exists()  # a list of one's own replaces the default


def test_one_that_fails_never_ends_a_search_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []
    monkeypatch.setattr(SilentProgress, "note", lambda self, text: notes.append(text))
    listener = Listener()
    disturbed = regression(tmp_path / "one", callbacks=[Fussy(), listener, "tensorboard"])
    assert results(disturbed) == results(regression(tmp_path / "two"))
    assert [note for note in notes if "Fussy" in note] == [
        "callback 'Fussy' failed when it was told that the run started and is left out from now on "
        "(ValueError: I do not like this job)"
    ]
    assert kinds(listener.heard)[-2:] == ["RunEnded", "closed"]
    for name in ("one", "two"):
        assert len(list((tmp_path / name / "tensorboard").iterdir())) == 1


def test_a_resumed_run_says_so_and_tells_no_trial_twice(tmp_path: Path) -> None:
    first, second, third = Listener(stop=3), Listener(), Listener()
    with pytest.raises(KeyboardInterrupt):
        regression(tmp_path / "run", callbacks=[first])
    assert kinds(first.heard)[-2:] == ["TrialEnded", "closed"]
    result = regression(tmp_path / "run", callbacks=[second, "tensorboard"], resume=True)
    assert [first.heard[0].resumed, second.heard[0].resumed] == [False, True]
    assert first.heard[0].id == second.heard[0].id
    assert sorted(trials(first.heard) + trials(second.heard)) == [trial.number for trial in result.trials]
    assert results(result) == results(regression(tmp_path / "undisturbed"))
    regression(tmp_path / "run", callbacks=[third], resume=True)
    assert third.heard == []  # it had ended, and was only read


def test_a_family_tells_of_one_run_after_the_other(tmp_path: Path) -> None:
    listener = Listener()
    constraints = {"flops": ["60%", "40%"]}
    regression(
        tmp_path / "family", call=autoprune.sweep, callbacks=[listener], constraints=constraints, verdict={"seeds": 0}
    )
    starts = [event for event in listener.heard if isinstance(event, RunStarted)]
    marks = [kind for kind in kinds(listener.heard) if kind in ("RunStarted", "RunEnded", "closed")]
    assert marks == ["RunStarted", "RunEnded", "closed"] * 2
    assert [Path(start.directory).name for start in starts] == ["1-flops-60", "2-flops-40"]
    assert [event.sentence for event in listener.heard if isinstance(event, RunEnded)] == ["", ""]


def test_a_job_names_callbacks_of_other_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points = EntryPoints([EntryPoint("listener", f"{__name__}:NamedListener", "autoprune.callbacks")])
    monkeypatch.setattr(registry, "entry_points", lambda group: points if group == "autoprune.callbacks" else ())
    HEARD.clear()
    path = write_job(tmp_path / "job.yaml", {"callbacks": ["listener", f"{__name__}:Fussy"], "verdict.seeds": 0})
    driver.start_job(load_job(path), tmp_path / "run", progress="silent")
    assert kinds(HEARD)[0] == "RunStarted"
    assert kinds(HEARD)[-2:] == ["RunEnded", "closed"]
    assert yaml.safe_load((tmp_path / "run/job.yaml").read_text())["callbacks"] == ["listener", f"{__name__}:Fussy"]


def test_callbacks_are_no_part_of_what_a_run_is(tmp_path: Path) -> None:
    plain = load_job(write_job(tmp_path / "plain.yaml"))
    told = load_job(write_job(tmp_path / "told.yaml", {"callbacks": [{"name": "mlflow", "settings": {"a": 1}}]}))
    assert job_fingerprint(plain) == job_fingerprint(told)
    assert plain.callbacks == load_job(write_job(tmp_path / "same.yaml", {"callbacks": ["tensorboard"]})).callbacks
    again = Job.model_validate(yaml.safe_load(told.text))
    assert again.callbacks == told.callbacks
    assert load_job(write_job(tmp_path / "none.yaml", {"callbacks": []})).callbacks == ()


@pytest.mark.parametrize(
    ("callbacks", "message"),
    [
        (["mlfow"], "unknown callback 'mlfow'.*Did you mean 'mlflow'"),
        (["mlflow"], r"callback 'mlflow' needs .*autoprune\[mlflow\]"),
        ([{"name": "tensorboard", "settings": {"every": 1}}], "callback 'tensorboard' has no setting 'every'"),
        ([Listener], r"callbacks\[0\] is the class Listener"),
        ("tensorboard", "callbacks is 'tensorboard'; give a list"),
    ],
)
def test_what_cannot_be_told_is_refused_before_anything_is_written(
    callbacks: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ConfigError, match=message):
        regression(tmp_path / "run", callbacks=callbacks)
    assert not (tmp_path / "run").exists()


def test_secrets_of_a_job_are_not_told(tmp_path: Path) -> None:
    listener, keyed = Listener(), {"name": f"{__name__}:Keyed", "settings": {"token": "hush"}}
    regression(tmp_path / "run", callbacks=[listener, keyed], verdict={"seeds": 0})
    assert "Keyed" in json.dumps(listener.heard[0].job)
    assert "hush" not in json.dumps(listener.heard[0].job)
