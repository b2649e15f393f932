"""TensorBoard events of a search, a point for each trial that ends; needs tensorboardX, which comes with ray[tune]."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, final

from autoprune.progress.callbacks import Callback, PhaseEnded, RunStarted, TrialEnded

_WINDOW = 20
"""Trials over which the pace is taken."""


@final
class TensorBoard(Callback):
    """Writes `tensorboard/` in the run directory, which TensorBoard opens; without tensorboardX nothing is written.

    A resumed search adds a file of events.

    Args:
        clock: seconds from any origin.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._folder: Path | None = None
        self._writer: Any = None
        self._ends: deque[float] = deque(maxlen=_WINDOW + 1)

    def run_started(self, event: RunStarted) -> None:
        """Remember where to write; the first trial opens the file."""
        self._folder = Path(event.directory) / "tensorboard"
        self._begin()

    def phase_ended(self, event: PhaseEnded) -> None:
        """The pace is that of the search, which begins when the base network is there."""
        self._begin()

    def trial_ended(self, event: TrialEnded) -> None:
        """Write a point of each curve that has a value; the horizontal axis counts trials that ended."""
        self._ends.append(self._clock())
        seconds = self._ends[-1] - self._ends[0]
        values = {
            "score/trial": event.score,
            "score/best": event.best,
            "score/uniform": event.uniform,
            "pace/candidates_per_minute": 60 * (len(self._ends) - 1) / seconds if seconds else None,
            "pace/workers_busy": event.busy,
            "pace/seconds_per_trial": event.seconds,
        }
        if self._writer is None and self._folder is not None:
            self._writer, self._folder = _writer(self._folder), None
        if self._writer is not None:
            for name, value in values.items():
                if value is not None:
                    self._writer.add_scalar(name, value, event.done)

    def close(self) -> None:
        """Write what is left."""
        if self._writer is not None:
            with suppress(OSError):
                self._writer.close()
        self._writer = self._folder = None

    def _begin(self) -> None:
        self._ends.clear()
        self._ends.append(self._clock())


def _writer(folder: Path) -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        return None
    before = len(list(folder.iterdir())) if folder.is_dir() else 0
    suffix = f".{before}" if before else ""  # two files of the same second would be one
    # without a queue: a full disk must not block us
    return SummaryWriter(str(folder), write_to_disk=True, flush_secs=10, max_queue=0, filename_suffix=suffix)
