"""The local engine: one evaluation after the other, in this process."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self, TypeVar, final

from autoprune.engines.base import Engine, Failure, Scoring, WorkerSetup
from autoprune.evaluators.base import Evaluator
from autoprune.space.groups import Widths
from autoprune.trials.assignment import Outcome
from autoprune.trials.session import SearchSession

P = TypeVar("P")
R = TypeVar("R")


@final
class LocalEngine(Engine):
    """Evaluates where it is called; the trials depend on the seed alone."""

    def __init__(self) -> None:
        self._setup: WorkerSetup | None = None
        self._evaluator: Evaluator | None = None
        self._busy = 0

    def open(self) -> Self:
        """Nothing has to be reached."""
        return self

    def equip(self, setup: WorkerSetup, note: Callable[[str], None] = lambda line: None) -> None:
        """See `Engine.equip`."""
        self._setup, self._evaluator = setup, setup.evaluator(setup.factory)

    def search(self, session: SearchSession) -> None:
        """See `Engine.search`."""
        self._busy = 1
        run(session, self._equipped[1])
        self._busy = 0

    def score(self, pieces: Sequence[Scoring]) -> Iterator[tuple[int, Outcome]]:
        """See `Engine.score`."""
        for number, piece in enumerate(pieces):
            yield number, evaluate(self._equipped[1], piece.widths, seed=piece.seed, full=True)

    def train(self, work: Callable[..., R], pieces: Sequence[P]) -> Iterator[tuple[int, R | Failure]]:
        """See `Engine.train`; what a training raises ends the run here, as it would end any loop."""
        for number, piece in enumerate(pieces):
            yield number, work(self._equipped[0].factory, piece)

    @property
    def workers(self) -> int:
        """This process."""
        return 1

    @property
    def busy(self) -> int:
        """See `Engine.busy`."""
        return self._busy

    def record(self) -> dict[str, Any]:
        """See `Engine.record`."""
        return {"name": "local", "workers": 1}

    def close(self) -> None:
        """There is nothing to give back."""

    @property
    def _equipped(self) -> tuple[WorkerSetup, Evaluator]:
        if self._setup is None or self._evaluator is None:
            raise RuntimeError("an engine is equipped before it works")
        return self._setup, self._evaluator


def run(session: SearchSession, evaluator: Evaluator) -> None:
    """Evaluate until the session has nothing left."""
    while (assignment := session.ask()) is not None:
        session.tell(assignment, evaluate(evaluator, assignment.widths, seed=assignment.seed))


def evaluate(evaluator: Evaluator, widths: Widths, *, seed: int, full: bool = False) -> Outcome:
    """Evaluate once; whatever a candidate does wrong becomes a failed outcome with its traceback."""
    start = time.perf_counter()
    try:
        score = float(evaluator.evaluate(widths, seed=seed, full=full))
        return Outcome(score, seconds=time.perf_counter() - start)
    except Exception:  # noqa: BLE001 - the worker boundary: a failing candidate never ends a search
        return Outcome(None, traceback.format_exc(), time.perf_counter() - start)
