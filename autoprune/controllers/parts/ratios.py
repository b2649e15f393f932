"""Widths as points of a vector space: logarithms of their ratios to the full widths, a coordinate for each group.

What has no such logarithm (a block that is off) has a coordinate that its kind gives it, see `space/kinds`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.space.groups import FloatArray
from autoprune.space.kinds.base import LACKING


def log_ratios(domain: BudgetedSpace, widths: npt.ArrayLike) -> FloatArray:
    """Return (N, G) log ratios of (N, G) widths."""
    return domain.space.kinds.log_ratios(widths)


def from_log_ratios(domain: BudgetedSpace, logs: FloatArray) -> FloatArray:
    """Return (N, G) real widths of (N, G) log ratios, not yet repaired; members come back as they were."""
    return domain.space.kinds.from_log_ratios(logs)


def random_widths(domain: BudgetedSpace, n: int, rng: np.random.Generator, *, least: float) -> FloatArray:
    """Return (n, G) real widths, not yet repaired: ratios drawn evenly from `least` to 1.

    Each row lacks at random up to a half of what can be left out.
    """
    kinds = domain.space.kinds
    ratios = rng.uniform(least, 1.0, (n, len(domain.space.groups)))
    lacking = rng.uniform(0.0, LACKING, (n, 1))
    return kinds.decided(kinds.drawn(ratios, rng.random(ratios.shape) - lacking))


def smallest_log_ratios(domain: BudgetedSpace) -> FloatArray:
    """Return the (G,) log ratios of the smallest choices."""
    smallest: FloatArray = log_ratios(domain, [domain.space.smallest])[0]
    return smallest
