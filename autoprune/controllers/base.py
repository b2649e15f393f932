"""Proposers of widths: `ask` and `tell`, and nothing else."""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

from autoprune.space.groups import Widths


class TrialState(enum.StrEnum):
    """How a trial ended."""

    COMPLETE = "complete"  # has a score
    PRUNED = "pruned"  # stopped early; its score is of a lower fidelity
    FAILED = "failed"  # teaches nothing; the traceback is kept


@final
@dataclass(frozen=True, slots=True)
class Trial:
    """One evaluated proposal.

    Attributes:
        number: position in the order in which proposals were made, from 0.
        widths: member of the space.
        state: how it ended.
        score: higher is better; None if and only if it failed.
        fidelity: share of the whole training after which the score was taken; below 1 only where it was stopped early.
        costs: metric name -> cost of the widths.
        origin: who proposed it: a controller's name, an allocation's name, or "random_baseline".
        seed: the seed the evaluator was given.
        seconds: wall time of the evaluation.
        told: how many trials had been told when this one was asked for; resuming replays by it.
        error: traceback of a failed trial.
        standard_error: of the score; None if unknown.
        paired: the standard error is that of the difference to a reference on the same examples; see `noise`.
        partial: (share of the whole evaluation, score then) at which it was decided whether to go on.
    """

    number: int
    widths: Widths
    state: TrialState
    score: float | None
    costs: Mapping[str, float] = field(default_factory=dict)
    origin: str = "controller"
    seed: int = 0
    seconds: float = 0.0
    told: int = 0
    error: str | None = None
    fidelity: float = 1.0
    standard_error: float | None = None
    paired: bool = False
    partial: tuple[tuple[float, float], ...] = ()

    @property
    def noise(self) -> float:
        """The standard error of the score that is known to be its own; 0 where nothing of it is known."""
        return self.standard_error if self.paired and self.standard_error is not None else 0.0


class Controller(ABC):
    """Proposes widths and learns from finished trials; knows no model, no worker, no tensor.

    A controller is built as `Factory(domain, seed=..., **settings)` where `domain` is a
    `autoprune.cost.budget.repair.BudgetedSpace`: the space, its closed-form costs, and `repair`.
    A factory that also takes `trials` (how many proposals the search will make), `importance` (per group the
    (width,) importances of its channels) or `learned` (see the method of that name) is given what is known of them.
    Same seed and same calls in the same order give the same proposals: a run resumes by replaying its ledger.

    Attributes:
        keeps_budget: every proposal is inside the budget. False: it also scores larger networks on its way into the
            budget; such a trial is never a winner.
        one_budget: proposals aim at the whole budget. False: at smaller ones, too, and there is a winner of each.
    """

    keeps_budget: bool = True
    one_budget: bool = True

    @abstractmethod
    def ask(self, n: int = 1) -> list[Widths]:
        """Return exactly `n` members of the space (see `keeps_budget`), ready to be evaluated in any order.

        Proposals asked for and not yet told are pending; a controller counts them so as not to repeat itself, and
        always has an answer: one that needs their scores proposes what would come next, or variations of the best.
        """

    @abstractmethod
    def tell(self, trials: Sequence[Trial]) -> None:
        """Learn from finished trials, also ones this controller never proposed; the caller's sequence is only read.

        Failed trials and scores that are not finite teach nothing. The order inside one call does not matter.
        """

    def exchange(self, proposed: Widths, handed_out: Widths) -> None:
        """Note that other widths are evaluated in place of a pending proposal.

        By default the proposal failed and the score of the others is learned as those of others' trials are. A
        controller that learns from its own proposals in another way has to override it.
        """
        self.tell([Trial(0, proposed, TrialState.FAILED, None, origin="exchange")])

    def winners(self) -> Mapping[float, Widths]:
        """Of a search for several budgets: share of the budget -> the best network inside it. Empty for one budget."""
        return {}

    def learned(self) -> Any:
        """What a search of the same space for another budget is to begin with, of JSON's types; None for nothing.

        In a family of budgets the next search's controller is made with it.
        """
        return None

    def snapshot(self) -> Any:
        """What replaying its proposals would compute anew, of JSON's types; None where replaying takes no time."""
        return None

    def restore(self, snapshot: Any, proposals: Sequence[Widths], trials: Sequence[Trial]) -> bool:
        """Become, freshly made, what the controller of a snapshot was; False, and unchanged, where that cannot be.

        Args:
            snapshot: of a controller that was made alike.
            proposals: all that it had made.
            trials: all that it had been told, in their order.
        """
        return False
