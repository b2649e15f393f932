"""AutoSlim's greedy slimming: Yu and Huang 2019, https://arxiv.org/abs/1903.11728, section 3.3.

From the full network, each step scores what cutting a small part of one group does, for every group, and cuts the one
with the least loss of accuracy, until the budget is met.

Departures: the paper scores with one slimmable network; here that is the evaluator's part. Where a search has fewer
trials than all steps need, a step looks at some of the groups only, drawn at random, and at last parts are larger. Once
inside the budget, the best networks found are varied.
"""

from __future__ import annotations

import math
from typing import final

import numpy as np

from autoprune.controllers.parts.greedy import GreedyController, largest_choices
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import ConfigError
from autoprune.space.groups import IntArray, Widths

_FEWEST_PARTS = 2


@final
class AutoSlim(GreedyController):
    """Small cuts, each where it costs least accuracy; proposals before the last step exceed the budget.

    Args:
        domain: the space under its budget.
        seed: of the order of the groups, and of variations of what is found.
        trials: how many proposals the search will make, where that is known.
        parts: into how many equal parts a group's channels are divided at most.

    Raises:
        ConfigError: `parts` is below 2.
    """

    def __init__(self, domain: BudgetedSpace, *, seed: int, trials: int | None = None, parts: int = 10) -> None:
        if parts < _FEWEST_PARTS:
            raise ConfigError(f"autoslim: parts must be at least {_FEWEST_PARTS}, got {parts}")
        self._parts = parts
        steps = math.ceil(parts * _still_to_cut(domain, domain.space.full))
        super().__init__(domain, seed=seed, trials=trials, steps=steps)

    def _cuts(self, at: Widths, step: int, left: int | None) -> IntArray:
        """One part less of each group, at least one choice."""
        here, full, parts = np.array(at), np.array(self._domain.space.full), self._parts
        if left is not None:  # large enough parts to arrive in time
            parts = int(np.clip(left / max(1e-9, _still_to_cut(self._domain, at)), _FEWEST_PARTS, self._parts))
        wanted = np.floor(here - full / parts + 1e-9).astype(np.int64)
        cut = np.minimum(largest_choices(self._domain, np.minimum(wanted, here - 1)), here)
        return np.where(np.eye(len(here), dtype=np.bool_), cut, here)


def _still_to_cut(domain: BudgetedSpace, at: Widths) -> float:
    """About how many whole groups must still go: what repair cuts from all of them together."""
    goal = domain.repair(np.array([at]))[0]
    return float(((np.array(at) - goal) / np.array(domain.space.full)).clip(0.0).sum())
