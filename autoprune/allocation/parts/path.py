"""From a row of networks that get wider, or from ratios, onto the budget."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.cost.polynomial import WidthMatrix
from autoprune.space.groups import FloatArray, IntArray, Widths


def widest_inside(domain: BudgetedSpace, kept: WidthMatrix) -> Widths:
    """Return the widest network of a path that is inside the budget, rounded and repaired.

    No group falls below its smallest choice. Between two neighbours of the path, which may be far apart where many
    channels tie, the widths are interpolated to meet the budget.

    Args:
        domain: the space under its budget.
        kept: (T, G) widths, growing down the rows; the last row is the full network.
    """
    rows: WidthMatrix = np.maximum(kept, domain.space.smallest)
    usage = np.maximum.accumulate(domain.budget.usage(rows))  # a latency table is not quite monotone
    inside = max(0, int(np.searchsorted(usage, 1.0, side="right")) - 1)
    if inside == len(rows) - 1:
        return domain.space.full
    share = 0.0 if usage[inside] > 1.0 else (1.0 - usage[inside]) / (usage[inside + 1] - usage[inside])
    return repaired(domain, rows[inside] + share * (rows[inside + 1] - rows[inside]))


def kept_counts(scores: list[FloatArray]) -> IntArray:
    """(T, G) how many channels of each group score at least each threshold, from above the highest to the lowest."""
    thresholds = np.unique(np.concatenate([*scores, [np.inf]]))[::-1]
    return np.stack([len(s) - np.searchsorted(np.sort(s), thresholds) for s in scores], axis=1)


def at_ratios(domain: BudgetedSpace, ratios: npt.ArrayLike) -> Widths:
    """Return the network whose groups keep these (G,) ratios of their widths, all scaled by one factor onto the budget.

    A ratio that would exceed 1 is 1. What does not scale (blocks) stays whole, unless the budget cannot be reached so.
    """
    full = np.array(domain.space.full, dtype=np.float64)
    return repaired(domain, np.where(domain.space.kinds.scales, np.asarray(ratios, dtype=np.float64) * full, full))


def repaired(domain: BudgetedSpace, row: npt.ArrayLike) -> Widths:
    """Return one row of widths on the budget, as a tuple of ints."""
    return tuple(int(w) for w in domain.repair(np.asarray(row, dtype=np.float64)[None, :])[0])
