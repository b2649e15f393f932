"""What a run shows while it works: a live display in a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self, TextIO, final

from autoprune.controllers.base import Trial, TrialState
from autoprune.errors import ConfigError, suggest

if TYPE_CHECKING:
    from rich.progress import TaskID

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
    def start(self, total: int, unit: str) -> None:
        """The search begins: `total` trials, scores in `unit` ("%" or "")."""

    @abstractmethod
    def trial(self, trial: Trial, best: float | None, uniform: float | None, done: int, total: int) -> None:
        """A trial ended; `best` score so far of the search, the better `uniform` score, `done` trials of `total`."""

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

    def start(self, total: int, unit: str) -> None:
        """Show nothing."""

    def trial(self, trial: Trial, best: float | None, uniform: float | None, done: int, total: int) -> None:
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
        self._unit = ""
        self._pace = _Pace(clock)
        self._name, self._step = "", 0
        self._steps: int | None = None

    def note(self, text: str) -> None:
        """Show the line."""
        self._show(text)

    def start(self, total: int, unit: str) -> None:
        """Announce the search."""
        self._unit, self._best, self._pace = unit, None, _Pace(self._clock)
        self._show(f"search: {total} trials")

    def trial(self, trial: Trial, best: float | None, uniform: float | None, done: int, total: int) -> None:
        """Show a trial that is news, or one now and then."""
        left = self._pace.left(done, total)
        news = done == total or trial.state is TrialState.FAILED or best != self._best
        self._best = best
        if news or self._due():
            standing = _standing(best, uniform, self._unit)
            self._show("  ".join(filter(None, [f"trial {done}/{total}", _result(trial, self._unit), standing, left])))

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
class RichProgress(Progress):
    """A live display: one bar per phase, and for the search the best score against uniform and the time left.

    Args:
        stream: written to; standard error by default.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        self._bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[note]}", markup=False),
            console=Console(file=stream) if stream else Console(stderr=True),
        )
        self._task: TaskID | None = None
        self._unit = ""
        self._bars.start()

    def note(self, text: str) -> None:
        """Print the line above the bars."""
        self._bars.console.print(text, markup=False, highlight=False)

    def start(self, total: int, unit: str) -> None:
        """Open the search's bar."""
        self._unit = unit
        self._open("search", total)

    def trial(self, trial: Trial, best: float | None, uniform: float | None, done: int, total: int) -> None:
        """Move the search's bar; a failed trial leaves a line above it."""
        if trial.state is TrialState.FAILED:
            line = f"trial {trial.number}  {_result(trial, self._unit)}"
            self._bars.console.print(line, style="red", markup=False, highlight=False)
        if self._task is not None:
            self._bars.update(self._task, completed=done, total=total, note=_standing(best, uniform, self._unit))

    def phase(self, name: str, total: int | None) -> None:
        """Open a bar for the phase."""
        self._open(name, total)

    def advance(self, text: str) -> None:
        """Move the phase's bar."""
        if self._task is not None:
            self._bars.update(self._task, advance=1, note=text)

    def close(self) -> None:
        """Leave the bars as they stand."""
        self._end_task()
        self._bars.stop()

    def _open(self, name: str, total: int | None) -> None:
        self._end_task()
        self._task = self._bars.add_task(name, total=total, note="")

    def _end_task(self) -> None:
        if self._task is not None:
            self._bars.stop_task(self._task)


def make_progress(mode: str = "auto", stream: TextIO | None = None) -> Progress:
    """Return the display for a stream, standard error by default; "auto" is live only in a terminal.

    Raises:
        ConfigError: an unknown mode.
    """
    if mode == "auto":
        mode = "rich" if (stream or sys.stderr).isatty() else "plain"
    match mode:
        case "rich":
            return RichProgress(stream)
        case "plain":
            return PlainProgress(stream)
        case "silent":
            return SilentProgress()
    allowed = ("auto", "rich", "plain", "silent")
    raise ConfigError(f"progress {mode!r} is unknown; allowed: {', '.join(allowed)}.{suggest(mode, allowed)}")


def score_text(value: float, unit: str) -> str:
    """A score with its unit, "%" or ""."""
    return f"{value:.2f} %" if unit == "%" else f"{value:.4g}"


def last_line(error: str | None) -> str:
    """The line of a traceback that says what went wrong; empty where there is none."""
    return next((line.strip() for line in reversed((error or "").splitlines()) if line.strip()), "")


@final
class _Pace:
    """Time left, from the trials seen since the first one (a resumed search does not start at 0)."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._began = clock()
        self._already: int | None = None

    def left(self, done: int, total: int) -> str:
        if self._already is None:
            self._already = done - 1
        if done >= total:
            return ""
        seconds = (self._clock() - self._began) / max(1, done - self._already) * (total - done)
        return f"{seconds:.0f} s left" if seconds < 90 else f"{seconds / 60:.0f} min left"


def _standing(best: float | None, uniform: float | None, unit: str) -> str:
    parts = [("best", best), ("uniform", uniform)]
    return ", ".join(f"{name} {score_text(value, unit)}" for name, value in parts if value is not None)


def _result(trial: Trial, unit: str) -> str:
    if trial.score is None:
        return f"failed: {last_line(trial.error)}".removesuffix(": ")
    stopped = " (stopped early)" if trial.state is TrialState.PRUNED else ""
    return score_text(trial.score, unit) + stopped
