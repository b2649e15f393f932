"""What a run shows while it works: a live display in a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import Self, TextIO, final

from autoprune.controllers.base import Trial, TrialState
from autoprune.texts import last_line, score_text


class Progress(ABC):
    """Told what happens in a run, in order; a context manager that closes itself.

    A run is the search (`start`, then `trial` for each one that ends) between phases (`phase`, then `advance` for each
    step that is done) such as training the base network. A new phase, or the search, ends what was shown before.
    """

    @abstractmethod
    def note(self, text: str) -> None:
        """Show a line that stays."""

    @abstractmethod
    def start(self, total: int, unit: str, workers: int = 1) -> None:
        """The search begins: `total` trials, scores in `unit` ("%" or ""), on so many `workers`."""

    @abstractmethod
    def trial(
        self, trial: Trial, best: float | None, uniform: float | None, done: int, total: int, busy: int = 1
    ) -> None:
        """A trial ended; `done` of `total`, while `busy` workers have others.

        Args:
            trial: that ended.
            best: score so far of the search.
            uniform: the better score of the uniform baselines.
            done: how many trials ended so far.
            total: how many there will be.
            busy: workers that evaluate now.
        """

    @abstractmethod
    def phase(self, name: str, total: int | None) -> None:
        """Work outside the search begins; `total` steps, None where that is not known."""

    @abstractmethod
    def advance(self, text: str) -> None:
        """One step of the phase is done; `text` says what came of it."""

    @abstractmethod
    def close(self) -> None:
        """Nothing follows; closing twice is harmless."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


@final
class SilentProgress(Progress):
    """Shows nothing."""

    def note(self, text: str) -> None:
        """Show nothing."""

    def start(self, total: int, unit: str, workers: int = 1) -> None:
        """Show nothing."""

    def trial(
        self, trial: Trial, best: float | None, uniform: float | None, done: int, total: int, busy: int = 1
    ) -> None:
        """Show nothing."""

    def phase(self, name: str, total: int | None) -> None:
        """Show nothing."""

    def advance(self, text: str) -> None:
        """Show nothing."""

    def close(self) -> None:
        """Show nothing."""


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
        self._unit, self._workers = "", 1
        self._pace = Pace(clock)
        self._name, self._step = "", 0
        self._steps: int | None = None

    def note(self, text: str) -> None:
        """Show the line."""
        self._show(text)

    def start(self, total: int, unit: str, workers: int = 1) -> None:
        """Announce the search."""
        self._unit, self._best, self._pace, self._workers = unit, None, Pace(self._clock), workers
        self._show(f"search: {total} trials{f' on {workers} workers' if workers > 1 else ''}")

    def trial(
        self, trial: Trial, best: float | None, uniform: float | None, done: int, total: int, busy: int = 1
    ) -> None:
        """Show a trial that is news, or one now and then."""
        self._pace.see(done)
        left, crew = self._pace.left(done, total), _crew(busy, self._workers)
        news = done == total or trial.state is TrialState.FAILED or best != self._best
        self._best = best
        if news or self._due():
            scores = standing(best, uniform, self._unit)
            told = [f"trial {done}/{total}", result(trial, self._unit), scores, self._pace.rate(), crew, left]
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


@final
class Pace:
    """Trials per minute and time left, from those seen since the first one (a resumed search does not start at 0)."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._began = clock()
        self._already: int | None = None
        self._done = 0

    def see(self, done: int) -> None:
        """So many trials have ended."""
        if self._already is None:
            self._already = done - 1
        self._done = done

    def rate(self) -> str:
        """Trials per minute; empty before the second one."""
        seen, seconds = self._done - (self._already or 0), self._clock() - self._began
        if seen < 2 or seconds <= 0:
            return ""
        rate = 60 * seen / seconds
        return f"{rate:.0f}/min" if rate >= 10 else f"{rate:.2g}/min"

    def left(self, done: int, total: int) -> str:
        """The time left; empty at the end."""
        if done >= total:
            return ""
        seconds = (self._clock() - self._began) / max(1, done - (self._already or 0)) * (total - done)
        return f"{seconds:.0f} s left" if seconds < 90 else f"{seconds / 60:.0f} min left"


def _crew(busy: int, workers: int) -> str:
    return f"{busy} of {workers} workers busy" if workers > 1 else ""


def standing(best: float | None, uniform: float | None, unit: str) -> str:
    """The best score of the search and that of uniform pruning, as far as there are any."""
    parts = [("best", best), ("uniform", uniform)]
    return ", ".join(f"{name} {score_text(value, unit)}" for name, value in parts if value is not None)


def result(trial: Trial, unit: str) -> str:
    """What came of a trial, in a few words."""
    if trial.score is None:
        return f"failed: {last_line(trial.error)}".removesuffix(": ")
    share = f" at {trial.fidelity:.0%} of its training" if trial.fidelity < 1 else " early"
    stopped = f" (stopped{share})" if trial.state is TrialState.PRUNED else ""
    return score_text(trial.score, unit) + stopped
