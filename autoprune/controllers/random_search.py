"""Random search: independent uniform ratios per group, repaired onto the budget; the control of every comparison."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np

from autoprune.controllers.base import Controller, Trial
from autoprune.controllers.proposals import unseen_member
from autoprune.cost.repair import BudgetedSpace
from autoprune.space.groups import Widths


@final
class RandomSearch(Controller):
    """Proposes random members of the space; scores teach it nothing, it only avoids repeats where it can."""

    def __init__(self, domain: BudgetedSpace, *, seed: int) -> None:
        self._domain = domain
        self._rng = np.random.default_rng(seed)
        self._seen: set[Widths] = set()

    def ask(self, n: int = 1) -> list[Widths]:
        """Return `n` random members inside the budget."""
        proposals = []
        for _ in range(n):
            proposals.append(unseen_member(self._domain, self._seen, self._rng))
            self._seen.add(proposals[-1])
        return proposals

    def tell(self, trials: Sequence[Trial]) -> None:
        """Remember the widths, so as not to repeat them."""
        self._seen.update(trial.widths for trial in trials)
