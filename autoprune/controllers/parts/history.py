"""What a controller has handed out and been told: scores, what is pending, and the best so far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np

from autoprune.controllers.base import Trial
from autoprune.controllers.parts.proposals import teachable, unseen_member, unseen_near
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.space.groups import Widths


@final
class History:
    """Scores by widths; several scores of the same widths count by their mean.

    Attributes:
        seen: all widths handed out or told.
        pending: those handed out and not told.
        scores: widths -> mean of their finite scores.
        best: the widths inside the budget with the highest of them, the first one told of equals; None before any.
    """

    def __init__(self, domain: BudgetedSpace) -> None:
        self._domain = domain
        self.seen: set[Widths] = set()
        self.pending: set[Widths] = set()
        self.scores: dict[Widths, float] = {}
        self.best: Widths | None = None
        self._counts: dict[Widths, int] = {}
        self._inside: dict[Widths, None] = {}  # in the order in which they were told

    def mark(self, widths: Widths) -> Widths:
        """Note that these widths are handed out, and return them."""
        self.seen.add(widths)
        self.pending.add(widths)
        return widths

    def exchange(self, proposed: Widths, handed_out: Widths) -> None:
        """Note that other widths are handed out in place of a pending proposal, as if it had never been made."""
        self.seen.discard(proposed)
        self.pending.discard(proposed)
        self.mark(handed_out)

    def tell(self, trials: Sequence[Trial]) -> list[tuple[Trial, float]]:
        """Take in ended trials and return those with a score, in the order of their numbers."""
        told = {trial.widths for trial in trials}
        self.seen |= told
        self.pending -= told
        scored = teachable(trials)
        for trial, score in scored:
            count = self._counts.get(trial.widths, 0)
            self._counts[trial.widths] = count + 1
            self.scores[trial.widths] = (self.scores.get(trial.widths, 0.0) * count + score) / (count + 1)
        self._find_best(list(dict.fromkeys(trial.widths for trial, _ in scored)))
        return scored

    def waits_for(self, widths: Widths) -> bool:
        """True where these widths have no result yet, because they are pending or were never handed out."""
        return widths in self.pending or widths not in self.seen

    def _find_best(self, told: list[Widths]) -> None:
        if not told:
            return
        for widths, inside in zip(told, self._domain.feasible(np.array(told)), strict=True):
            if inside:
                self._inside[widths] = None
        if self.best in told:  # its mean may have fallen
            self.best = max(self._inside, key=self.scores.__getitem__)
        elif fresh := [widths for widths in told if widths in self._inside]:
            self.best = max([self.best, *fresh] if self.best else fresh, key=self.scores.__getitem__)


def near_best(domain: BudgetedSpace, history: History, rng: np.random.Generator) -> Widths:
    """Return an unseen variation of the best widths in about one group, or any unseen member before there is a best."""
    if history.best is None:
        return unseen_member(domain, history.seen, rng)
    return unseen_near(domain, history.best, history.seen, rng)
