"""One ratio on all groups but the residual ones, which stay full, as in Li et al. 2017 (arXiv 1608.08710)."""

from __future__ import annotations

from collections.abc import Sequence

from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.space.groups import FloatArray, Widths


def uniform_inner(domain: BudgetedSpace, scores: Sequence[FloatArray] = ()) -> Widths:
    """Return the uniform member with full residual groups; the scores are not looked at.

    Raises:
        BudgetError: the budget cannot be reached with full residual groups.
    """
    return domain.uniform(inner_only=True)
