"""Widths for methods that cannot begin without some: uniform ones."""

from __future__ import annotations

from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.space.groups import Widths


def target_widths(domain: BudgetedSpace) -> Widths:
    """The widths that `Subject.target` has, on the same budget."""
    return domain.uniform()
