"""A proposal on its way: handed out as an assignment, it comes back as an outcome, and is a trial then."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from autoprune.controllers.base import Trial, TrialState
from autoprune.errors import EvaluationError
from autoprune.redaction import masked
from autoprune.space.groups import Widths


@final
@dataclass(frozen=True, slots=True)
class Assignment:
    """A proposal that is to be evaluated.

    Attributes:
        number: position in the order of proposals, from 0.
        widths: member of the space.
        origin: who proposed it.
        seed: for the evaluator.
        told: how many trials had been told when it was proposed.
        costs: metric -> cost.
    """

    number: int
    widths: Widths
    origin: str
    seed: int
    told: int
    costs: Mapping[str, float]


@final
@dataclass(frozen=True, slots=True)
class Outcome:
    """How an evaluation ended: a finite score, or an error's traceback.

    Attributes:
        score: higher is better; None if and only if it failed.
        error: traceback of a failed one, without secrets.
        seconds: wall time.
        pruned: it was stopped early.
        fidelity: share of the whole training after which the score was taken.

    Raises:
        EvaluationError: the score is not a finite number, there is neither a score nor an error, or a fidelity not in
            (0, 1].
    """

    score: float | None
    error: str | None = None
    seconds: float = 0.0
    pruned: bool = False
    fidelity: float = 1.0

    def __post_init__(self) -> None:
        if self.score is None and not self.error:
            raise EvaluationError("an outcome without a score needs the error that explains it")
        if self.error is not None:  # it goes into ledger, report and progress
            object.__setattr__(self, "error", masked(self.error))
        if self.score is not None and not math.isfinite(self.score):
            raise EvaluationError(f"the score is {self.score}, not a finite number")
        if not 0 < self.fidelity <= 1:
            raise EvaluationError(f"the fidelity is {self.fidelity}, not a share of a training above 0 and at most 1")


def finished_trial(assignment: Assignment, outcome: Outcome) -> Trial:
    """The trial that an assignment became."""
    ended = TrialState.PRUNED if outcome.pruned else TrialState.COMPLETE
    return Trial(
        assignment.number,
        assignment.widths,
        TrialState.FAILED if outcome.score is None else ended,
        outcome.score,
        assignment.costs,
        assignment.origin,
        assignment.seed,
        outcome.seconds,
        assignment.told,
        outcome.error,
        outcome.fidelity,
    )
