"""The contract of every callback, as a test class: subclass it and give it a callback.

class TestMine(CallbackContract):
    @pytest.fixture
    def make(self) -> Make:
        return lambda: Mine(address="…")
"""

# ruff: noqa: D102 - the name of a test is its law
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from autoprune.progress.callbacks import Callback, PhaseEnded, RunEnded, RunStarted, TrialEnded
from autoprune.testing.generators import global_generators

Make: TypeAlias = Callable[[], Callback]
"""A new callback that may be told anything."""


def run_started(directory: Path, *, resumed: bool = False) -> RunStarted:
    """The beginning of a run whose job is small."""
    job = {"name": "tiny", "seed": 0, "search": {"trials": 2, "allocations": ["knapsack"]}, "constraints": {}}
    return RunStarted(f"{directory.name}-00c0ffee", str(directory), job, "%", resumed)


def trial_ended(number: int, score: float | None) -> TrialEnded:
    """A trial with this score, or one that failed."""
    return TrialEnded(
        number=number,
        widths=(4, 8),
        origin="controller",
        state="failed" if score is None else "complete",
        score=score,
        standard_error=None if score is None else 0.5,
        fidelity=1.0,
        costs={"flops": 1200.0, "params": 40.0},
        seconds=2.0,
        error="ValueError: no" if score is None else "",
        best=score,
        uniform=50.0,
        done=number + 1,
        total=3,
        busy=1,
    )


def run_ended(directory: Path, *, sentence: str = "") -> RunEnded:
    """The end of a run, with or without a verdict."""
    return RunEnded(str(directory), sentence, "better" if sentence else "", (4, 8), {"flops": 1200.0}, 60.0)


class CallbackContract:
    """Laws of a callback."""

    def test_it_hears_a_whole_run(self, make: Make, tmp_path: Path) -> None:
        callback = make()
        _tell(callback, tmp_path, sentence="The winner is better.")
        callback.close()

    def test_it_hears_a_run_without_a_verdict_that_goes_on(self, make: Make, tmp_path: Path) -> None:
        callback = make()
        _tell(callback, tmp_path, resumed=True)
        callback.close()

    def test_it_hears_one_run_after_the_other(self, make: Make, tmp_path: Path) -> None:
        callback = make()
        for name in ("first", "second"):
            (tmp_path / name).mkdir()
            _tell(callback, tmp_path / name)
            callback.close()

    def test_a_run_may_be_interrupted(self, make: Make, tmp_path: Path) -> None:
        callback = make()
        callback.run_started(run_started(tmp_path))
        callback.trial_ended(trial_ended(0, 60.0))
        callback.close()

    def test_closing_twice_or_before_anything_is_harmless(self, make: Make, tmp_path: Path) -> None:
        callback = make()
        callback.close()
        _tell(callback, tmp_path)
        callback.close()
        callback.close()

    def test_made_it_writes_nothing(self, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        make().close()
        assert list(tmp_path.iterdir()) == []

    def test_global_generators_are_left_as_they_were(self, make: Make, tmp_path: Path) -> None:
        before = global_generators()
        callback = make()
        _tell(callback, tmp_path)
        callback.close()
        assert global_generators() == before


def _tell(callback: Callback, directory: Path, *, sentence: str = "", resumed: bool = False) -> None:
    callback.run_started(run_started(directory, resumed=resumed))
    callback.phase_ended(PhaseEnded("base network", 3.0))
    for number, score in enumerate((60.0, None, 61.5)):
        callback.trial_ended(trial_ended(number, score))
    callback.phase_ended(PhaseEnded("search", 9.0))
    callback.run_ended(run_ended(directory, sentence=sentence))
