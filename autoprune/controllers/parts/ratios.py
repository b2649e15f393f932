"""Widths as points of a vector space: logarithms of their ratios to the full widths, a coordinate for each group.

A block that can be left out lies at log 0.25 where it is off and at 0 where it is on; `repair` decides at the middle.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.space.groups import FloatArray

_OFF = 0.25


def log_ratios(domain: BudgetedSpace, widths: npt.ArrayLike) -> FloatArray:
    """Return (N, G) log ratios of (N, G) widths."""
    ratios = np.atleast_2d(np.asarray(widths, dtype=np.float64)) / np.array(domain.space.full)
    logs: FloatArray = np.log(np.maximum(ratios, _OFF * domain.switches))
    return logs


def from_log_ratios(domain: BudgetedSpace, logs: FloatArray) -> FloatArray:
    """Return (N, G) real widths of (N, G) log ratios, not yet repaired; members come back as they were."""
    ratios = np.exp(np.minimum(np.atleast_2d(logs), 0.0))
    widths = ratios * np.array(domain.space.full)
    whole = np.rint(widths)
    exact: FloatArray = np.where(np.abs(widths - whole) < 1e-9 * whole, whole, widths)  # exp undoes log but for this
    return np.where(domain.switches, ratios >= 0.5, exact)


def random_widths(domain: BudgetedSpace, n: int, rng: np.random.Generator, *, least: float) -> FloatArray:
    """Return (n, G) real widths, not yet repaired: ratios drawn evenly from `least` to 1.

    Each row lacks at random up to a half of the blocks that can be left out.
    """
    widths: FloatArray = rng.uniform(least, 1.0, (n, len(domain.switches))) * np.array(domain.space.full)
    lacking = rng.uniform(0.0, 0.5, (n, 1))
    kept = rng.random(widths.shape) >= lacking
    proposals: FloatArray = np.where(domain.switches, kept, widths)
    return proposals


def smallest_log_ratios(domain: BudgetedSpace) -> FloatArray:
    """Return the (G,) log ratios of the smallest choices."""
    smallest: FloatArray = log_ratios(domain, [domain.space.smallest])[0]
    return smallest
