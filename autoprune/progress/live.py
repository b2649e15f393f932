"""The live display of a run in a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TextIO, final
from weakref import WeakSet

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table

from autoprune.controllers.base import Trial, TrialState
from autoprune.progress.base import Pace, Progress, result, scored_by, standing
from autoprune.texts import ScoreScale, score_text


@final
class _Bars(Bars):
    """Bars, and a table below them."""

    table: Table | None = None

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        if self.table is not None:
            yield self.table


_SHOWN: WeakSet[_Bars] = WeakSet()
"""What is drawn now."""


@contextmanager
def paused() -> Iterator[None]:
    """Inside, nothing is drawn, so that somebody can be asked something."""
    drawn = list(_SHOWN)
    for bars in drawn:
        bars.stop()
    try:
        yield
    finally:
        for bars in drawn:
            bars.start()


@final
class RichProgress(Progress):
    """A live display: one bar per phase, and a table of the search.

    Args:
        stream: written to; standard error by default.
        clock: seconds.
    """

    def __init__(self, stream: TextIO | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._bars = _Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[note]}", markup=False),
            console=Console(file=stream) if stream else Console(stderr=True),
        )
        self._task: TaskID | None = None
        self._scale, self._standing, self._workers = ScoreScale(), "", 1
        self._clock, self._pace = clock, Pace(clock)
        self._bars.start()
        _SHOWN.add(self._bars)

    def note(self, text: str) -> None:
        """Print the line above the bars."""
        self._bars.console.print(text, markup=False, highlight=False)

    def start(self, total: int, scale: ScoreScale, workers: int = 1) -> None:
        """Open the search's bar."""
        self._scale, self._workers, self._pace = scale, workers, Pace(self._clock)
        self._open(f"search{scored_by(scale)}", total)

    def trial(
        self, trial: Trial, best: float | None, uniform: float | None, done: int, total: int, busy: int = 1
    ) -> None:
        """Move the search's bar and fill its table; a failed trial leaves a line above them."""
        self._pace.see(done)
        if trial.state is TrialState.FAILED:
            line = f"trial {trial.number}  {result(trial, self._scale)}"
            self._bars.console.print(line, style="red", markup=False, highlight=False)
        if self._task is not None:
            self._bars.table = self._table(best, uniform, done, total, busy)
            self._bars.update(self._task, completed=done, total=total)
            self._standing = standing(best, uniform, self._scale)

    def _table(self, best: float | None, uniform: float | None, done: int, total: int, busy: int) -> Table:
        cells = {
            "trials": f"{done} of {total}",
            "best": "–" if best is None else score_text(best, self._scale),
            "uniform": "–" if uniform is None else score_text(uniform, self._scale),
            "per minute": self._pace.rate().removesuffix("/min") or "–",
            "workers busy": f"{busy} of {self._workers}",
        }
        table = Table(*cells)
        table.add_row(*cells.values())
        return table

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
        _SHOWN.discard(self._bars)

    def _open(self, name: str, total: int | None) -> None:
        self._end_task()
        self._task = self._bars.add_task(name, total=total, note="")

    def _end_task(self) -> None:
        if self._task is not None and self._bars.table is not None:
            self._bars.table = None
            self._bars.update(self._task, note=self._standing)  # stays on the bar when the table goes
        if self._task is not None:
            self._bars.stop_task(self._task)
