"""The local engine: one evaluation after the other, in this process."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable

from autoprune.controllers.base import Trial
from autoprune.evaluators.base import Evaluator
from autoprune.search.ledger import Assignment, Outcome
from autoprune.search.session import SearchSession


def run(session: SearchSession, evaluator: Evaluator, *, on_trial: Callable[[Trial], None]) -> None:
    """Evaluate until the session has nothing left; `on_trial` is called after each one."""
    while (assignment := session.ask()) is not None:
        on_trial(session.tell(assignment, evaluate(evaluator, assignment)))


def evaluate(evaluator: Evaluator, assignment: Assignment) -> Outcome:
    """Evaluate one assignment; whatever a candidate does wrong becomes a failed outcome with its traceback."""
    start = time.perf_counter()
    try:
        score = evaluator.evaluate(assignment.widths, seed=assignment.seed)
    except Exception:  # noqa: BLE001 - the worker boundary: a failing candidate never ends a search
        return Outcome(None, traceback.format_exc(), time.perf_counter() - start)
    return Outcome(score, None, time.perf_counter() - start)
