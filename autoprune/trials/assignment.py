"""A proposal on its way: handed out as an assignment, it comes back as an outcome, and is a trial then."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self, final

from autoprune.controllers.base import Trial, TrialState
from autoprune.errors import EvaluationError
from autoprune.redaction import masked
from autoprune.space.groups import Widths
from autoprune.tasks.score import Score, as_score, packed


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
        incumbents: the best candidates when it was proposed, the best one first; see `Evaluator.follows`.
    """

    number: int
    widths: Widths
    origin: str
    seed: int
    told: int
    costs: Mapping[str, float]
    incumbents: tuple[Widths, ...] = ()


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
        standard_error: of the score; None if unknown.
        paired: see `Score.paired`.
        examples: the values of single examples, see `autoprune.tasks.score.packed`; None where they are not kept.
        partial: (share of the whole evaluation, score then) at which it was decided whether to go on.

    Raises:
        EvaluationError: the score is not a finite number, there is neither a score nor an error, or a fidelity not in
            (0, 1].
    """

    score: float | None
    error: str | None = None
    seconds: float = 0.0
    pruned: bool = False
    fidelity: float = 1.0
    standard_error: float | None = None
    paired: bool = False
    examples: str | None = None
    partial: tuple[tuple[float, float], ...] = ()

    @classmethod
    def of(cls, score: float | Score, **about: Any) -> Self:
        """The outcome of an evaluation that gave a score.

        Args:
            score: with its noise, or a plain number.
            about: other attributes.

        Raises:
            EvaluationError: see the class.
        """
        given = as_score(score)
        examples = None if given.examples is None else packed(given.examples)
        error = None if given.standard_error is None else float(given.standard_error)
        return cls(float(given), standard_error=error, paired=given.paired, examples=examples, **about)

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
        outcome.standard_error,
        outcome.paired,
        outcome.partial,
    )


def score_of(trial: Trial) -> Score | None:
    """The score of a trial, without the values of examples; None where it failed."""
    return None if trial.score is None else Score(trial.score, trial.standard_error, trial.paired)
