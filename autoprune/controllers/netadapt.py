"""NetAdapt: Yang et al. 2018, https://arxiv.org/abs/1804.03230, Algorithm 1.

From the full network, each step removes the same share of the resource from one group: for every group the fewest
channels are cut that save it, all these networks are scored, and the best one is kept. The first step removes 2.5 % of
the full network's resource and each one 0.96 times what the last one did (the authors' code). The resource is the share
of the budget's tightest limit.

Departures: the short fine-tune of every candidate is the evaluator's: one that trains does so from the base network,
not from the last step's winner; `inherited` only recalibrates batch norms. Where a search has fewer trials than the
paper's steps need, a step looks at some of the groups only, drawn at random, and at last steps are longer. Once inside
the budget, the best networks found are varied.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import numpy as np

from autoprune.controllers.base import Controller, Trial
from autoprune.controllers.greedy import GreedyWalk
from autoprune.controllers.history import History, near_best
from autoprune.cost.repair import BudgetedSpace
from autoprune.errors import ConfigError
from autoprune.space.groups import IntArray, Widths


@final
class NetAdapt(Controller):
    """Equal savings, each from the group that can best spare it; proposals before the last step exceed the budget.

    Args:
        domain: the space under its budget.
        seed: of the order of the groups, and of variations of what is found.
        trials: how many proposals the search will make, where that is known.
        reduction: what the first step removes, as a share of the full network's resource.
        decay: what each step removes, as a share of what the last one did.

    Raises:
        ConfigError: a setting is out of its range.
    """

    keeps_budget = False

    def __init__(
        self,
        domain: BudgetedSpace,
        *,
        seed: int,
        trials: int | None = None,
        reduction: float = 0.025,
        decay: float = 0.96,
    ) -> None:
        for name, share in (("reduction", reduction), ("decay", decay)):
            if not 0 < share <= 1:
                raise ConfigError(f"netadapt: {name} must be above 0 and at most 1, got {share}")
        self._domain = domain
        self._rng = np.random.default_rng(seed)
        self._history = History(domain)
        self._full = max(1.0, float(domain.budget.usage(np.array([domain.space.full]))[0]))
        self._reduction, self._decay = reduction, decay
        removed = np.cumsum([self._removed(step) for step in range(math.ceil(10 / reduction) + 1)])
        steps = 1 + int(np.searchsorted(removed, self._full - 1.0 - 1e-9))
        self._walk = GreedyWalk(domain, self._history, self._cuts, seed=seed, steps=steps, trials=trials)

    def ask(self, n: int = 1) -> list[Widths]:
        """Return `n` options of this step or of those to come, and variations of the best once all are known."""
        return [
            self._history.mark(self._walk.next() or near_best(self._domain, self._history, self._rng)) for _ in range(n)
        ]

    def tell(self, trials: Sequence[Trial]) -> None:
        """Remember the scores."""
        self._history.tell(trials)

    def _removed(self, step: int) -> float:
        """What a step removes of the share of the budget; reductions fade to a tenth, or they might never get there."""
        return self._full * self._reduction * max(self._decay**step, 0.1)

    def _cuts(self, at: Widths, step: int, left: int | None) -> IntArray:
        """For each group the widest choice that meets the step's target, or its smallest one (Fig. 2 of the paper)."""
        here = float(self._domain.budget.usage(np.array([at]))[0])
        removed = self._removed(step)
        if left is not None:  # long enough steps to arrive in time
            removed = max(removed, (here - 1.0) / float((self._decay ** np.arange(left)).sum()))
        target = max(1.0, here - removed)
        groups = self._domain.space.groups
        index = np.arange(len(groups))
        low = np.zeros(len(groups), dtype=np.int64)
        high = np.array([group.choices.index(width) for group, width in zip(groups, at, strict=True)])
        while (low < high).any():  # the largest choice that saves enough, by bisection for all groups at once
            middle = (low + high + 1) // 2
            rows = np.repeat([at], len(groups), axis=0)
            rows[index, index] = [group.choices[m] for group, m in zip(groups, middle, strict=True)]
            enough = self._domain.budget.usage(rows) <= target
            low, high = np.where(enough, middle, low), np.where(enough, high, middle - 1)
        rows = np.repeat([at], len(groups), axis=0)
        rows[index, index] = [group.choices[i] for group, i in zip(groups, low, strict=True)]
        return rows
