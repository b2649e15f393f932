from __future__ import annotations

import json
import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from autoprune.config.parts import NamedPart
from autoprune.errors import ConfigError, RegistryError
from autoprune.progress.callback_list import CallbackList, by_name_and_ready, make_callback
from autoprune.progress.callbacks import Callback, PhaseEnded, RunEnded, RunStarted, TrialEnded
from autoprune.progress.tensorboard import TensorBoard
from autoprune.testing.callbacks import CallbackContract, Make, run_ended, run_started, trial_ended
from autoprune.testing.generators import global_generators


class Recorder(Callback):
    """Keeps what it hears.

    Args:
        marks: added to each event's name.
    """

    def __init__(self, marks: str = "") -> None:
        self.heard: list[str] = []
        self._marks = marks

    def run_started(self, event: RunStarted) -> None:
        self.heard.append(f"run{self._marks}")

    def trial_ended(self, event: TrialEnded) -> None:
        self.heard.append(f"trial {event.number}{self._marks}")

    def phase_ended(self, event: PhaseEnded) -> None:
        self.heard.append(f"{event.name}{self._marks}")

    def run_ended(self, event: RunEnded) -> None:
        self.heard.append(f"end{self._marks}")

    def close(self) -> None:
        self.heard.append("closed")


class Failing(Recorder):
    """Fails at the second trial, and when it is closed."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self._error = error

    def trial_ended(self, event: TrialEnded) -> None:
        super().trial_ended(event)
        if event.number == 1:
            raise self._error

    def close(self) -> None:
        super().close()
        raise OSError("also when it is closed")


class TestPlainCallback(CallbackContract):
    @pytest.fixture
    def make(self) -> Make:
        return Callback


def tell_all(callbacks: CallbackList, folder: Path) -> None:
    with callbacks:
        callbacks.run_started(run_started(folder))
        for number in range(3):
            callbacks.trial_ended(trial_ended(number, 60.0))
        callbacks.phase_ended(PhaseEnded("search", 1.0))
        callbacks.run_ended(run_ended(folder))


WHOLE = ["run", "trial 0", "trial 1", "trial 2", "search", "end", "closed"]


@pytest.mark.parametrize("error", [ValueError("no disk\nat all"), SystemExit("no disk"), RuntimeError()], ids=repr)
def test_one_that_fails_is_reported_once_closed_and_left_out(error: BaseException, tmp_path: Path) -> None:
    notes: list[str] = []
    before, failing, after = Recorder(), Failing(error), Recorder()
    tell_all(CallbackList([], [before, failing, after], note=notes.append), tmp_path)
    assert before.heard == after.heard == WHOLE
    assert failing.heard == ["run", "trial 0", "trial 1", "closed"]
    reason = f"{type(error).__name__}: no disk" if str(error) else type(error).__name__
    assert notes == [
        f"callback 'Failing' failed when it was told that trial 1 ended and is left out from now on ({reason})"
    ]


def test_an_interrupt_of_the_user_passes_and_all_are_closed(tmp_path: Path) -> None:
    first, interrupted, last = Recorder(), Failing(KeyboardInterrupt()), Recorder()
    with pytest.raises(KeyboardInterrupt):
        tell_all(CallbackList([], [first, interrupted, last], note=lambda line: None), tmp_path)
    assert [one.heard[-1] for one in (first, interrupted, last)] == ["closed"] * 3


def test_an_error_while_closing_is_reported_and_the_others_are_closed(tmp_path: Path) -> None:
    notes: list[str] = []
    last = Recorder()
    with CallbackList([], [Failing(ValueError()), last], note=notes.append):
        pass
    assert last.heard == ["closed"]
    assert notes == [
        "callback 'Failing' failed when it was closed and is left out from now on (OSError: also when it is closed)"
    ]


def test_secrets_in_an_error_are_not_shown(tmp_path: Path) -> None:
    notes: list[str] = []
    error = ValueError("cannot reach http://me:hush@host/")
    tell_all(CallbackList([], [Failing(error)], note=notes.append), tmp_path)
    assert "hush" not in notes[0]


class Meddling(Callback):
    """Draws random numbers and changes what it is told."""

    def run_started(self, event: RunStarted) -> None:
        job: Any = event.job
        job.clear()
        random.seed(3)
        torch.manual_seed(3)

    def trial_ended(self, event: TrialEnded) -> None:
        costs: Any = event.costs
        costs["flops"] = 0.0


def test_what_one_does_reaches_neither_the_others_nor_the_search(tmp_path: Path) -> None:
    heard: list[Any] = []

    class Listening(Callback):
        def run_started(self, event: RunStarted) -> None:
            heard.append(event)

        def trial_ended(self, event: TrialEnded) -> None:
            heard.append(event)

    started, ended, before = run_started(tmp_path), trial_ended(0, 1.0), global_generators()
    callbacks = CallbackList([], [Meddling(), Listening()], note=pytest.fail)
    callbacks.run_started(started)
    callbacks.trial_ended(ended)
    assert heard == [run_started(tmp_path), trial_ended(0, 1.0)] == [started, ended]
    assert global_generators() == before


def test_events_are_plain_values(tmp_path: Path) -> None:
    for event in (run_started(tmp_path), trial_ended(0, None), PhaseEnded("search", 1.0), run_ended(tmp_path)):
        assert json.loads(json.dumps(asdict(event)))


ready = Recorder("!")


def not_one(size: int = 3) -> list[int]:
    """Returns something else."""
    return [0] * size


def broken() -> Callback:
    """Fails."""
    raise ValueError("no license")


def test_a_callback_is_a_name_a_class_a_function_or_an_object() -> None:
    made = make_callback(NamedPart(name=f"{__name__}:Recorder", settings={"marks": "?"}))
    assert isinstance(made, Recorder)
    assert make_callback(NamedPart(name=f"{__name__}:ready")) is ready
    assert isinstance(make_callback(NamedPart(name="tensorboard")), TensorBoard)


@pytest.mark.parametrize(
    ("name", "settings", "kind", "message"),
    [
        ("tensorbord", {}, RegistryError, "unknown callback 'tensorbord'; .* Did you mean 'tensorboard'"),
        ("tensorboard", {"folder": "x"}, ConfigError, "callback 'tensorboard' has no setting 'folder'"),
        ("tensorboard", {"clock": 1}, ConfigError, "callback 'tensorboard' has no setting 'clock'"),
        (f"{__name__}:Recorder", {"mark": 1}, ConfigError, "has no setting 'mark'; its settings are marks"),
        (f"{__name__}:Recordr", {}, RegistryError, "has no 'Recordr'"),
        (f"{__name__}:not_one", {}, ConfigError, "is a list; name a subclass of autoprune.progress.callbacks.Callback"),
        (f"{__name__}:ready", {"marks": 1}, ConfigError, "has no setting 'marks'"),
        (f"{__name__}:broken", {}, ConfigError, "cannot be made: ValueError: no license .* Correct its"),
    ],
)
def test_what_is_none_is_one_clear_error(name: str, settings: dict[str, Any], kind: type, message: str) -> None:
    with pytest.raises(kind, match=message):
        make_callback(NamedPart(name=name, settings=settings))


@pytest.mark.parametrize("given", ["tensorboard", ready, {"name": "tensorboard"}, None, 3])
def test_python_gives_a_list(given: Any) -> None:
    with pytest.raises(ConfigError, match="give a list of names"):
        by_name_and_ready(given)


def test_names_and_objects_are_told_apart() -> None:
    assert by_name_and_ready(["mlflow", ready, {"name": "x"}]) == (["mlflow", {"name": "x"}], (ready,))
    with pytest.raises(ConfigError, match=r"callbacks\[1\] is the class Recorder, not an object of it; give a list"):
        by_name_and_ready(["mlflow", Recorder])  # type: ignore[list-item]
