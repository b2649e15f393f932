"""When a search ends before all of its trials: its time is over, or somebody asked for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, final

from autoprune.trials.finishing import is_asked_to_finish
from autoprune.trials.run_directory import RunDirectory
from autoprune.trials.run_files import read_run

ENDED_EARLY = "ended_early"
"""Of `run.json`: why a search ended early, and with how many proposals; a resumed run does not search on."""

SEARCHED = "search_seconds"
"""Of `run.json`: how long the search has worked, over all resumptions; only kept where its time is limited."""

_EVERY = 2.0
"""Seconds between two notes of the time: a kill loses no more of it."""


@final
class SearchEnd:
    """Asked before each proposal; once over, always over.

    Args:
        directory: of the run.
        budget: seconds for the whole search, over all resumptions; None: no limit.
        clock: seconds.
    """

    def __init__(
        self, directory: RunDirectory, budget: float | None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._directory, self._budget, self._clock = directory, budget, clock
        entries = read_run(directory.path)
        earlier = entries.get("seconds", {}).get("search", 0.0)
        self._before = max(float(earlier), float(entries.get(SEARCHED, 0.0)))
        self._began = self._noted = clock()
        self.why: str = entries.get(ENDED_EARLY, {}).get("why", "")

    def __call__(self) -> bool:
        """Whether the search is over."""
        if self.why:
            return True
        if is_asked_to_finish(self._directory.path):
            self.why = "asked to finish"
        elif self._budget is not None:
            spent = self._spent(self._clock())
            if spent >= self._budget:
                self.why = f"time_budget of {self._budget:g} s"
        return bool(self.why)

    def _spent(self, now: float) -> float:
        spent = self._before + now - self._began
        if now - self._noted > _EVERY:
            self._noted = now
            self._directory.update_run(**{SEARCHED: round(spent, 3)})
        return spent

    def record(self, proposed: int, total: int) -> Mapping[str, Any]:
        """What `run.json` holds of a search that ended early."""
        return {"why": self.why, "proposed": proposed, "planned": total}
