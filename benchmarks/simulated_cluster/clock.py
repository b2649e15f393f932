"""What is measured of a run, and a real session that ends when the measurement does."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from autoprune.controllers import make_controller
from autoprune.controllers.base import Trial
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.testing.spaces import chain_space
from autoprune.trials.assignment import Assignment, Outcome
from autoprune.trials.ledger import Ledger, open_storage
from autoprune.trials.session import SearchSession

DOMAIN = BudgetedSpace(chain_space((16,) * 4 + (32,) * 4 + (48,) * 4 + (64,) * 4), {"flops": "50%"})
LASTS = {0.1: 6.0, 1.0: 10.0, 10.0: 30.0}
"""Seconds of measurement by the length of an evaluation."""


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes:
        lane: "actors", "tune" or "peer".
        controller: who proposed.
        workers: how many.
        seconds: length of an evaluation.
        utilisation: share of the workers' time in which they slept.
        rate: trials per second.
        driver_ms: CPU milliseconds of the driver per trial.
        session_ms: wall-clock milliseconds per trial in the session (controller and ledger, with its waits for the
            disk); None where there was no session.
    """

    lane: str
    controller: str
    workers: int
    seconds: float
    utilisation: float
    rate: float
    driver_ms: float
    session_ms: float | None


@dataclass
class Clock:
    """Phases of naps of one length each, one after the other; naps leave lines in the folder."""

    folder: Path
    phases: Sequence[float]
    running: bool = False
    trials: int = 0
    session: float = 0.0
    marks: list[tuple[float, float, float, int]] = field(default_factory=list)

    def start(self) -> None:
        """All workers are there."""
        self.running = True
        self._mark()

    def tick(self) -> bool:
        """Go on to the next phase when it is time; False when all are over."""
        if self.running and not self.over and time.time() - self.marks[-1][0] > LASTS[self.phases[len(self.marks) - 1]]:
            self._mark()
        return not self.over

    @property
    def over(self) -> bool:
        """Whether all phases have ended."""
        return len(self.marks) > len(self.phases)

    def _mark(self) -> None:
        self.marks.append((time.time(), time.process_time(), self.session, self.trials))
        if not self.over:
            (self.folder / "seconds").write_text(str(self.phases[len(self.marks) - 1]))

    def rows(self, lane: str, controller: str, workers: int, *, session: bool = True) -> list[Row]:
        """What came of each phase; the naps of the phase before are given time to end."""
        lines = [line.split() for file in self.folder.glob("naps-*") for line in file.read_text().splitlines()]
        naps = [(float(begin), float(end)) for begin, end in lines]
        rows = []
        for i, seconds in enumerate(self.phases):
            (begin, cpu, own, trials), (end, cpu_end, own_end, trials_end) = self.marks[i : i + 2]
            settled = begin + (1.25 * self.phases[i - 1] if i else 0.0)
            slept = sum(max(0.0, min(b, end) - max(a, settled)) for a, b in naps)
            n = max(1, trials_end - trials)
            rows.append(
                Row(
                    lane,
                    controller,
                    workers,
                    seconds,
                    slept / workers / (end - settled),
                    n / (end - begin),
                    1e3 * (cpu_end - cpu) / n,
                    1e3 * (own_end - own) / n if session else None,
                )
            )
        return rows


class TimedSession:
    """A real session that runs out of proposals when the clock does.

    Args:
        controller: name.
        clock: what is measured.
        seed: of the controller.
    """

    def __init__(self, controller: str, clock: Clock, seed: int) -> None:
        self._clock = clock
        self._session = SearchSession(
            DOMAIN,
            make_controller(controller, DOMAIN, seed=seed, settings={}),
            Ledger(open_storage(None, clock.folder / "journal.log"), "search", DOMAIN.space),
            plan=[],
            trials=10**6,
            seed=seed,
        )

    def ask(self) -> Assignment | None:
        """See `SearchSession.ask`."""
        if not self._clock.tick():
            return None
        with self._counted():
            return self._session.ask()

    def tell(self, assignment: Assignment, outcome: Outcome) -> Trial:
        """See `SearchSession.tell`."""
        with self._counted():
            trial = self._session.tell(assignment, outcome)
        self._clock.trials += 1
        return trial

    @contextmanager
    def _counted(self) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self._clock.session += time.perf_counter() - begin
