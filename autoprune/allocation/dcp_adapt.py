"""Widths from where more channels stop helping: DCP-Adapt, Zhuang et al. 2018, arXiv 1810.11809, section 3.5."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoprune.allocation.base import Probe, allocation
from autoprune.allocation.parts.curves import Curve, measured
from autoprune.allocation.parts.path import widest_inside
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.space.groups import FloatArray, Widths


@allocation("probe")
def dcp_adapt(domain: BudgetedSpace, scores: Sequence[FloatArray] = (), *, probe: Probe, points: int = 8) -> Widths:
    """Add channels to each group until one more lowers its loss by at most ε of what there is to lower, ε for all.

    DCP-Adapt adds one channel after the other to a layer, the most important first, and stops where
    |L(W^{t-1}) - L(W^t)| / L(W^0) ≤ ε. The paper sets ε; here it is what meets the budget. Channels come in the order
    of the job's criterion, L is what the score of the network loses while only this group is narrowed, and L(W^0) that
    at the group's smallest width. Between the measured points a curve is straight; as the paper argues from the
    convexity of its loss, the convex curve below the points counts, so that the decreases fall. Departures: no
    discrimination-aware losses are inserted and no weights are trained while channels are added. Needs
    1 + points × groups evaluations, once for all budgets of a job; scores are not looked at.

    Args:
        domain: the space under its budget.
        scores: not looked at.
        probe: scores networks.
        points: of each group's curve.

    Raises:
        ConfigError: `points` is not a whole number of at least 1.
        EvaluationError: the full network could not be scored.
    """
    return at_one_decrease(domain, measured("dcp_adapt", domain, probe, points))


def at_one_decrease(domain: BudgetedSpace, curves: Sequence[Curve]) -> Widths:
    """The network at the smallest ε that meets the budget, filled up."""
    hulls = [_convex(curve) for curve in curves]
    falls = [_relative_decreases(hull) for hull in hulls]
    levels = np.unique(np.concatenate([*falls, [np.inf]]))[::-1]
    rows = np.empty((len(levels), len(hulls)))
    for g, (hull, fall) in enumerate(zip(hulls, falls, strict=True)):
        kept = (fall[None, :] >= levels[:, None]).sum(axis=1)  # decreases fall with the width
        rows[:, g] = hull.widths[kept]
    full = np.array([domain.space.full], dtype=np.float64)
    return widest_inside(domain, np.concatenate([rows, full]))


def _convex(curve: Curve) -> Curve:
    """The points of the lower convex hull, from the narrowest to the full width."""
    kept: list[int] = []
    for i in range(len(curve.widths)):
        while len(kept) > 1 and not _below(curve, kept[-2], kept[-1], i):
            kept.pop()
        kept.append(i)
    return Curve(curve.widths[kept], curve.losses[kept])


def _below(curve: Curve, a: int, b: int, c: int) -> bool:
    """Whether point b lies below the line from a to c."""
    w, y = curve.widths, curve.losses
    return bool((y[b] - y[a]) * (w[c] - w[a]) < (y[c] - y[a]) * (w[b] - w[a]))


def _relative_decreases(hull: Curve) -> FloatArray:
    """(n - 1,) how much of the loss at the smallest width one more channel takes away, from narrow to wide."""
    falls = -np.diff(hull.losses) / np.diff(hull.widths)
    relative: FloatArray = falls / (float(hull.losses[0]) or 1.0)
    return relative
