"""One ratio on every group, stem and skip included: MobileNet's width multiplier (arXiv 1704.04861, section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence

from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.space.groups import FloatArray, Widths


def uniform_all(domain: BudgetedSpace, scores: Sequence[FloatArray] = ()) -> Widths:
    """Return the uniform member on the budget; the scores are not looked at."""
    return domain.uniform()
