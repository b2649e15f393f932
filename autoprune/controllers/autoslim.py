"""AutoSlim's greedy slimming: Yu and Huang 2019, https://arxiv.org/abs/1903.11728, section 3.3.

From the full network, each step scores what cutting a small part of one group does, for every group, and cuts the one
with the least loss of accuracy, until the budget is met.

Departures: the paper scores with one slimmable network; here that is the evaluator's part. Where a search has fewer
trials than all steps need, a step looks at some of the groups only, drawn at random, and at last parts are larger. Once
inside the budget, the best networks found are varied.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import numpy as np

from autoprune.controllers.base import Controller, Trial
from autoprune.controllers.greedy import GreedyWalk, largest_choices
from autoprune.controllers.parts.history import History, near_best
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import ConfigError
from autoprune.space.groups import IntArray, Widths

_FEWEST_PARTS = 2


@final
class AutoSlim(Controller):
    """Small cuts, each where it costs least accuracy; proposals before the last step exceed the budget.

    Args:
        domain: the space under its budget.
        seed: of the order of the groups, and of variations of what is found.
        trials: how many proposals the search will make, where that is known.
        parts: into how many equal parts a group's channels are divided at most.

    Raises:
        ConfigError: `parts` is below 2.
    """

    keeps_budget = False

    def __init__(self, domain: BudgetedSpace, *, seed: int, trials: int | None = None, parts: int = 10) -> None:
        if parts < _FEWEST_PARTS:
            raise ConfigError(f"autoslim: parts must be at least {_FEWEST_PARTS}, got {parts}")
        self._domain = domain
        self._rng = np.random.default_rng(seed)
        self._history = History(domain)
        self._full, self._parts = np.array(domain.space.full), parts
        steps = math.ceil(parts * self._still_to_cut(domain.space.full))
        self._walk = GreedyWalk(domain, self._history, self._cuts, seed=seed, steps=steps, trials=trials)

    def ask(self, n: int = 1) -> list[Widths]:
        """Return `n` options of this step or of those to come, and variations of the best once all are known."""
        return [
            self._history.mark(self._walk.next() or near_best(self._domain, self._history, self._rng)) for _ in range(n)
        ]

    def tell(self, trials: Sequence[Trial]) -> None:
        """Remember the scores."""
        self._history.tell(trials)

    def _cuts(self, at: Widths, step: int, left: int | None) -> IntArray:
        """One part less of each group, at least one choice."""
        here, parts = np.array(at), self._parts
        if left is not None:  # large enough parts to arrive in time
            parts = int(np.clip(left / max(1e-9, self._still_to_cut(at)), _FEWEST_PARTS, self._parts))
        wanted = np.floor(here - self._full / parts + 1e-9).astype(np.int64)
        cut = np.minimum(largest_choices(self._domain, np.minimum(wanted, here - 1)), here)
        return np.where(np.eye(len(here), dtype=np.bool_), cut, here)

    def _still_to_cut(self, at: Widths) -> float:
        """About how many whole groups must still go: what repair cuts from all of them together."""
        goal = self._domain.repair(np.array([at]))[0]
        return float(((np.array(at) - goal) / self._full).clip(0.0).sum())
