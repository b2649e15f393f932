"""One tolerance for the sensitivity curves of all groups: Li et al. 2017, arXiv 1608.08710, section 3.2; FastNAS."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoprune.allocation.base import Probe, allocation
from autoprune.allocation.parts.curves import Curve, measured
from autoprune.allocation.parts.path import widest_inside
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.space.groups import FloatArray, Widths

_LEVELS = 200  # of the tolerance, besides those at which a curve bends


@allocation("probe")
def sensitivity_tolerance(
    domain: BudgetedSpace, scores: Sequence[FloatArray] = (), *, probe: Probe, points: int = 8
) -> Widths:
    """Give each group its narrowest width that alone loses at most a tolerance, the same for all.

    Li et al. prune each layer alone, look at how the accuracy falls, and set ratios by hand; NVIDIA Model Optimizer's
    FastNAS scores every ratio in steps of 0.05 and bisects one tolerance onto the budget. Here curves have `points`
    points, are made monotone and interpolated. The controller `fastnas` does it as a search: its curves grow with the
    length of the search and the networks found are varied. Needs 1 + points × groups evaluations, once for all budgets
    of a job; scores are not looked at.

    Args:
        domain: the space under its budget.
        scores: not looked at.
        probe: scores networks.
        points: of each group's curve.

    Raises:
        ConfigError: `points` is not a whole number of at least 1.
        EvaluationError: the full network could not be scored.
    """
    return at_one_tolerance(domain, measured("sensitivity_tolerance", domain, probe, points))


def at_one_tolerance(domain: BudgetedSpace, curves: Sequence[Curve]) -> Widths:
    """The network at the smallest tolerance that meets the budget, filled up."""
    bends = np.concatenate([curve.losses for curve in curves])
    tolerances = np.unique(np.concatenate([bends, np.linspace(0.0, float(bends.max()), _LEVELS)]))[::-1]
    columns = []
    for curve, group in zip(curves, domain.space.groups, strict=True):
        losses, first = np.unique(curve.losses, return_index=True)  # the narrowest of equal losses
        columns.append(np.interp(tolerances, losses, curve.widths[first].astype(np.float64)))
        if not domain.space.kinds.scales[len(columns) - 1]:  # there or not, nothing between
            columns[-1] = np.where(columns[-1] > group.choices[0], float(group.width), columns[-1])
    full = np.array([domain.space.full], dtype=np.float64)
    return widest_inside(domain, np.concatenate([np.stack(columns, axis=1), full]))
