"""What a run shows while it works: a live display in a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import Literal, Self, final

from autoprune.controllers.base import Trial, TrialState
from autoprune.texts import ScoreScale, last_line, score_text

Mode = Literal["auto", "rich", "plain", "silent"]


class Progress(ABC):
    """Told what happens in a run, in order; a context manager that closes itself.

    A run is the search (`start`, then `trial` for each one that ends) between phases (`phase`, then `advance` for each
    step that is done) such as training the base network. A new phase, or the search, ends what was shown before.
    """

    @abstractmethod
    def note(self, text: str) -> None:
        """Show a line that stays."""

    @abstractmethod
    def start(self, total: int, scale: ScoreScale, workers: int = 1) -> None:
        """The search begins: `total` trials, scores on `scale`, on so many `workers`."""

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

    def start(self, total: int, scale: ScoreScale, workers: int = 1) -> None:
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


def standing(best: float | None, uniform: float | None, scale: ScoreScale) -> str:
    """The best score of the search and that of uniform pruning, as far as there are any."""
    parts = [("best", best), ("uniform", uniform)]
    return ", ".join(f"{name} {score_text(value, scale)}" for name, value in parts if value is not None)


def result(trial: Trial, scale: ScoreScale) -> str:
    """What came of a trial, in a few words."""
    if trial.score is None:
        return f"failed: {last_line(trial.error)}".removesuffix(": ")
    if trial.at_rung:
        return f"{trial.score:.4g} at rung {len(trial.partial) or 1}, where it ended"
    share = f" at {trial.fidelity:.0%} of its training" if trial.fidelity < 1 else " early"
    stopped = f" (stopped{share})" if trial.state is TrialState.PRUNED else ""
    return score_text(trial.score, scale) + stopped


def workers_text(busy: int, workers: int) -> str:
    """How many workers are busy; empty for one."""
    return f"{busy} of {workers} workers busy" if workers > 1 else ""


def scored_by(scale: ScoreScale) -> str:
    """What is to be known to read scores, after a comma; empty where a higher number is plainly the better one."""
    return "" if scale.higher_is_better else f", {scale.told}"
