"""NetAdapt: Yang et al. 2018, https://arxiv.org/abs/1804.03230, Algorithm 1.

From the full network, each step removes the same share of the resource from one group: for every group the fewest
channels are cut that save it, all these networks are scored, and the best one is kept. The first step removes 2.5 % of
the full network's resource and each one 0.96 times what the last one did (the authors' code). The resource is the share
of the budget's tightest limit.

Departures: a group that cannot save a step's share is no option of that step (the authors' code cuts it as far as it
goes and picks by accuracy lost per resource saved: next to nothing saved, and noise decides); where no group can, the
step saves half of the most that one could. Steps never fade below a tenth of the first, or they might never arrive. The
short fine-tune of every candidate is the evaluator's: one that trains does so from the base network, not from the last
step's winner; `inherited` only recalibrates batch norms. Where a search has fewer trials than the paper's steps need, a
step looks at some of the groups only, drawn at random, and at last steps are longer. Once inside the budget, the best
networks found are varied.
"""

from __future__ import annotations

import math
from typing import final

import numpy as np

from autoprune.controllers.parts.greedy import GreedyController
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import ConfigError
from autoprune.space.groups import IntArray, Widths


@final
class NetAdapt(GreedyController):
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
        self._full = max(1.0, float(domain.budget.usage(np.array([domain.space.full]))[0]))
        self._reduction, self._decay = reduction, decay
        removed = np.cumsum([self._removed(step) for step in range(math.ceil(10 / reduction) + 1)])
        steps = 1 + int(np.searchsorted(removed, self._full - 1.0 - 1e-9))
        super().__init__(domain, seed=seed, trials=trials, steps=steps)

    def _removed(self, step: int) -> float:
        """What a step removes of the share of the budget; reductions fade to a tenth at most."""
        return self._full * self._reduction * max(self._decay**step, 0.1)

    def _cuts(self, at: Widths, step: int, left: int | None) -> IntArray:
        """For each group that can save the step's share, the widest choice that does (Fig. 2 of the paper)."""
        here = float(self._domain.budget.usage(np.array([at]))[0])
        removed = self._removed(step)
        if left is not None:  # long enough steps to arrive in time
            removed = max(removed, (here - 1.0) / float((self._decay ** np.arange(left)).sum()))
        target = max(1.0, here - removed)
        lowest = self._domain.budget.usage(self._one_changed(at, np.zeros(len(at), dtype=np.int64))).min()
        if lowest > target:
            target = (here + float(lowest)) / 2
        rows = self._widest(at, target)
        rows[self._domain.budget.usage(rows) > target] = at
        return rows

    def _widest(self, at: Widths, target: float) -> IntArray:
        """For each group the widest choice that meets the target, or the smallest one; by bisection for all at once."""
        low = np.zeros(len(at), dtype=np.int64)
        high = np.array([g.choices.index(width) for g, width in zip(self._domain.space.groups, at, strict=True)])
        while (low < high).any():
            middle = (low + high + 1) // 2
            enough = self._domain.budget.usage(self._one_changed(at, middle)) <= target
            low, high = np.where(enough, middle, low), np.where(enough, high, middle - 1)
        return self._one_changed(at, low)

    def _one_changed(self, at: Widths, choices: IntArray) -> IntArray:
        """(G, G) widths: row g has group g at its choice of that index, all others as they are."""
        rows = np.repeat([at], len(at), axis=0)
        np.fill_diagonal(rows, [g.choices[i] for g, i in zip(self._domain.space.groups, choices, strict=True)])
        return rows
