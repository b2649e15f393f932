"""Random search: independent uniform ratios per group, repaired onto the budget; the control of every comparison."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import final

import numpy as np

from autoprune.controllers.base import Controller, Trial
from autoprune.controllers.parts.proposals import as_widths, unseen_member
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.space.groups import Widths

_DRAWN = 8
"""Members drawn in one call: its cost hardly depends on their number."""


@final
class RandomSearch(Controller):
    """Proposes random members of the space; scores teach it nothing, it only avoids repeats where it can."""

    def __init__(self, domain: BudgetedSpace, *, seed: int) -> None:
        self._domain = domain
        self._rng = np.random.default_rng(seed)
        self._seen: set[Widths] = set()
        self._drawn: deque[Widths] = deque()

    def ask(self, n: int = 1) -> list[Widths]:
        """Return `n` random members inside the budget."""
        proposals = []
        for _ in range(n):
            proposals.append(self._draw())
            self._seen.add(proposals[-1])
        return proposals

    def tell(self, trials: Sequence[Trial]) -> None:
        """Remember the widths, so as not to repeat them."""
        self._seen.update(trial.widths for trial in trials)

    def _draw(self) -> Widths:
        if not self._drawn:
            self._drawn.extend(map(as_widths, self._domain.sample(_DRAWN, self._rng)))
        widths = self._drawn.popleft()
        return unseen_member(self._domain, self._seen, self._rng) if widths in self._seen else widths
