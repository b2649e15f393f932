"""Plain lines, for logs and pipes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TextIO, final

from autoprune.controllers.base import Trial, TrialState
from autoprune.progress.base import Pace, Progress, result, scored_by, standing, workers_text
from autoprune.texts import ScoreScale


@final
class PlainProgress(Progress):
    """One line per event; steps that only repeat themselves are shown once per `every` seconds.

    A first, a last and a failed trial, a new best score, and the first and last step of a phase are always shown.

    Args:
        stream: written to; standard error by default.
        every: seconds between lines of routine steps.
        clock: seconds from any origin.
    """

    def __init__(
        self, stream: TextIO | None = None, *, every: float = 10.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream or sys.stderr
        self._every, self._clock = every, clock
        self._shown_at = -every
        self._best: float | None = None
        self._scale, self._workers = ScoreScale(), 1
        self._pace = Pace(clock)
        self._name, self._step = "", 0
        self._steps: int | None = None

    def note(self, text: str) -> None:
        """Show the line."""
        self._show(text)

    def start(self, total: int, scale: ScoreScale, workers: int = 1) -> None:
        """Announce the search."""
        self._scale, self._best, self._pace, self._workers = scale, None, Pace(self._clock), workers
        self._show(f"search: {total} trials{f' on {workers} workers' if workers > 1 else ''}{scored_by(scale)}")

    def trial(
        self, trial: Trial, best: float | None, uniform: float | None, done: int, total: int, busy: int = 1
    ) -> None:
        """Show a trial that is news, or one now and then."""
        self._pace.see(done)
        left, crew = self._pace.left(done, total), workers_text(busy, self._workers)
        news = done == total or trial.state is TrialState.FAILED or best != self._best
        self._best = best
        if news or self._due():
            scores = standing(best, uniform, self._scale)
            told = [f"trial {done}/{total}", result(trial, self._scale), scores, self._pace.rate(), crew, left]
            self._show("  ".join(filter(None, told)))

    def phase(self, name: str, total: int | None) -> None:
        """Announce a phase."""
        self._name, self._step, self._steps = name, 0, total
        self._show(name if total is None else f"{name}: {total} steps")

    def advance(self, text: str) -> None:
        """Show the first and the last step, and others now and then."""
        self._step += 1
        if self._step in (1, self._steps) or self._due():
            of = "" if self._steps is None else f"/{self._steps}"
            self._show(f"{self._name} {self._step}{of}  {text}".rstrip())

    def close(self) -> None:
        """Every line is already written."""

    def _due(self) -> bool:
        return self._clock() - self._shown_at >= self._every

    def _show(self, line: str) -> None:
        self._shown_at = self._clock()
        self._stream.write(line + "\n")
        self._stream.flush()
