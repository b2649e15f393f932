"""The local engine: one evaluation after the other, in this process."""

from __future__ import annotations

import time
import traceback

from autoprune.evaluators.base import Evaluator
from autoprune.search.ledger import Outcome
from autoprune.search.session import SearchSession
from autoprune.space.groups import Widths


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
