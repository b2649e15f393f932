"""Around every phase: its seconds go to run.json and to callbacks, and the base network stays as it was."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TypeVar, final

from torch import nn

from autoprune.pipeline.phases.context import RunContext
from autoprune.progress.callbacks import PhaseEnded
from autoprune.training.integrity import Snapshot
from autoprune.trials.run_files import JOURNAL, journal_lines

T = TypeVar("T")


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
            RunError: the phase changed the base network.
        """
        started, directory = time.perf_counter(), self._run.directory
        try:
            found = work()
            self.check(phase)
        finally:
            seconds: Mapping[str, float] = directory.recorded("seconds")
            lines = {JOURNAL: journal_lines(directory.path)}
            spent = round(seconds.get(phase, 0.0) + time.perf_counter() - started, 3)
            directory.update_run(seconds={**seconds, phase: spent}, engine=self._run.engine.record(), **lines)
        self._run.told.phase_ended(PhaseEnded(phase, spent))
        return found

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
