"""Around every phase: its seconds go to run.json and to callbacks, and the base network stays as it was."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TypeVar, final

from torch import nn

from autoprune.errors import EvaluationError, RunError, blame
from autoprune.pipeline.phases.context import RunContext
from autoprune.progress.callbacks import PhaseEnded
from autoprune.training.integrity import Snapshot
from autoprune.trials.run_files import JOURNAL, journal_lines

T = TypeVar("T")

_THEN = "Every ended trial is on disk: correct the cause, then resume the run."


@final
class Timed:
    """Call it with the name and the work of a phase; seconds are added up over all resumptions.

    Args:
        run: whose phases they are.
    """

    def __init__(self, run: RunContext) -> None:
        self._run = run
        self._base: Snapshot | None = None

    def __call__(self, phase: str, work: Callable[[], T]) -> T:
        """What the work returns.

        Raises:
            EvaluationError: the user's own code failed.
            RunError: the phase changed the base network.
        """
        started = time.perf_counter()
        try:
            with blame(EvaluationError, f"the phase {phase!r} ended with it", then=_THEN, only_users=True):
                found = work()
            self.check(phase)
        except BaseException:
            with suppress(RunError):  # of a directory that is gone: what went wrong before it is told
                self._note(phase, started)
            raise
        spent = self._note(phase, started)
        self._run.told.phase_ended(PhaseEnded(phase, spent))
        return found

    def _note(self, phase: str, started: float) -> float:
        directory = self._run.directory
        seconds: Mapping[str, float] = directory.recorded("seconds")
        spent = round(seconds.get(phase, 0.0) + time.perf_counter() - started, 3)
        lines = {JOURNAL: journal_lines(directory.path)}
        directory.update_run(seconds={**seconds, phase: spent}, engine=self._run.engine.record(), **lines)
        return spent

    def guard(self, base: nn.Module) -> nn.Module:
        """From here on this network must stay as it is; returns it."""
        self._base = Snapshot(base)
        return base

    def check(self, phase: str) -> None:
        """Candidates are cut from the base network: what was scored after a change of it means nothing.

        Raises:
            RunError: it is not as it was when it was guarded.
        """
        if self._base is not None:
            self._base.check(
                f"{phase} changed the base network", "let your code work on copies of it, then start a new run"
            )
