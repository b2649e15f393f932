"""Limits with a lower end: a network inside all of them, from which others can be reached."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from autoprune.cost.budget.budget import Budget
from autoprune.cost.budget.limits import number
from autoprune.errors import BudgetError
from autoprune.space.groups import FloatArray, IntArray

_TRIES, _ROUNDS = 256, 24


def inside_all_ranges(budget: Budget, full: FloatArray, onto_limit: Callable[[FloatArray], IntArray]) -> FloatArray:
    """Return a (1, G) proposal that `onto_limit` puts inside all ranges: random ones, then mutants of the best.

    Args:
        budget: with at least one lower end.
        full: (1, G) unpruned widths.
        onto_limit: (N, G) proposals -> members below all upper ends.

    Raises:
        BudgetError: none was found; says how close the ranges can be come to.
    """
    rng = np.random.default_rng(0)
    tried: FloatArray = np.concatenate([full, full * rng.uniform(0.05, 1.0, (_TRIES, full.shape[1]))])
    for round_ in range(_ROUNDS):
        members = onto_limit(tried)
        lacks = budget.shortfall(members)
        best = np.argsort(lacks, kind="stable")[: _TRIES // 8]
        if lacks[best[0]] <= 0:
            return tried[best[:1]]
        if round_ < _ROUNDS - 1:
            around = np.repeat(tried[best], 8, axis=0)
            tried = np.concatenate([tried[best], around * np.exp(rng.normal(0, 0.3, around.shape))])
    costs = budget.costs_of(tuple(int(n) for n in members[best[0]]))
    found = ", ".join(f"{limit.metric} {number(costs[limit.metric])}" for limit in budget.limits)
    reach = "; ".join(f"{limit.metric}: {limit.reachable}" for limit in budget.limits)
    raise BudgetError(
        f"budget {budget} contradicts itself: no network inside all limits was found, the closest one has {found}. "
        f"Each limit by itself can be reached ({reach}). Lower a min or raise a max"
    )
