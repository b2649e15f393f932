"""TensorBoard events of a search, a point for each trial that ends; needs tensorboardX, which comes with ray[tune]."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, final

from autoprune.controllers.base import Trial

_WINDOW = 20
"""Trials over which the pace is taken."""


@final
class Events:
    """Writes to a folder that TensorBoard opens; without tensorboardX nothing is written. A context manager.

    Args:
        folder: for the event files; a resumed search adds one.
        clock: seconds from any origin.
    """

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._writer = clock, _writer(folder)
        self._ends: deque[float] = deque([clock()], maxlen=_WINDOW + 1)

    def trial(self, trial: Trial, best: float | None, uniform: float | None, done: int, busy: int) -> None:
        """A trial ended.

        Args:
            trial: the trial.
            best: highest score so far of the search.
            uniform: highest score so far of uniform pruning.
            done: trials ended, the horizontal axis.
            busy: workers that evaluate now.
        """
        self._ends.append(self._clock())
        seconds = self._ends[-1] - self._ends[0]
        values = {
            "score/trial": trial.score,
            "score/best": best,
            "score/uniform": uniform,
            "pace/candidates_per_minute": 60 * (len(self._ends) - 1) / seconds if seconds else None,
            "pace/workers_busy": busy,
            "pace/seconds_per_trial": trial.seconds,
        }
        if self._writer is not None:
            for name, value in values.items():
                if value is not None:
                    self._writer.add_scalar(name, value, done)

    def close(self) -> None:
        """Write what is left; closing twice is harmless."""
        if self._writer is not None:
            with suppress(OSError):
                self._writer.close()
            self._writer = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _writer(folder: Path) -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), write_to_disk=True, flush_secs=10, max_queue=0)  # a full disk must not block us
