"""The least sum of what each group alone loses, under the budget, as Puzzle and HALP do it; see `knapsack`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from autoprune.allocation.base import Probe, allocation
from autoprune.allocation.parts.choices import least_loss
from autoprune.allocation.parts.curves import Curve, grid, measured
from autoprune.allocation.parts.path import repaired
from autoprune.allocation.parts.scores import Normalisation, checked_scores, normalised, one_of
from autoprune.cost.budget.limits import Limit
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import ConfigError
from autoprune.space.groups import FloatArray, IntArray, Widths

_TABLES = ("measured", "importance")


@allocation("probe")
def knapsack(
    domain: BudgetedSpace,
    scores: Sequence[FloatArray],
    *,
    probe: Probe,
    table: str = "measured",
    points: int = 8,
    normalise: Normalisation = "none",
) -> Widths:
    """Minimise Σ_g D_g(c_g) under the budget, where D_g(c) is what is lost while only group g is narrowed to c.

    "measured": D_g is how much the score of the network falls with this group alone at c, as Puzzle scores a library of
    alternative blocks one at a time (arXiv 2411.19146, section 3); it needs 1 + points × groups evaluations, once for
    all budgets of a job, and the widths are those measured. "importance": D_g is the sum of the scores of the channels
    that are cut, as in HALP (arXiv 2110.10811, equation 3, with importances by Taylor expansion: give the rule the
    criterion `taylor_weight`); it needs no evaluations.

    Costs do not add up over groups, as a product costs what the widths on both of its sides multiply to. What is exact:

    * the optimum of the table, by branch and bound on the true costs of all limits at once, where that stays within
      200 000 partial networks of each length (some ten groups);
    * otherwise the dynamic programme for a cost that is additive around the network found last, repeated until nothing
      gets better, then exchanges of single notches by true costs: a network inside the budget, the optimum of the table
      where one limit's cost is additive, and no worse than its neighbours elsewhere.

    The repair then fills what the choices leave of the budget. That losses add up is an assumption: EvoPress
    (Sieberling et al. 2024, arXiv 2410.14649) shows networks where it fails.

    Args:
        domain: the space under its budget.
        scores: per group, (width,) importances of its channels; looked at for "importance" only.
        probe: scores networks; asked for "measured" only.
        table: "measured" or "importance".
        points: widths of each group besides the full one, evenly spread.
        normalise: for "importance", what the scores of a group are divided by: "none", "l2", "mean" or "max".

    Raises:
        ConfigError: a setting out of its range, or scores that do not fit the groups.
        EvaluationError: the full network could not be scored.
    """
    one_of("knapsack", "table", table, _TABLES)
    if table == "measured":
        curves = measured("knapsack", domain, probe, points)
    else:
        curves = _summed(domain, normalised("knapsack", checked_scores("knapsack", domain, scores), normalise), points)
    return repaired(domain, solution(domain, curves)[0])


def solution(domain: BudgetedSpace, curves: Sequence[Curve]) -> tuple[IntArray, bool]:
    """(G,) widths with the least sum of losses inside all upper limits, and whether that is proved."""
    options = [
        np.union1d(curve.widths, group.choices[:1]) for curve, group in zip(curves, domain.space.groups, strict=True)
    ]
    losses = [np.interp(o, curve.widths, curve.losses) for o, curve in zip(options, curves, strict=True)]
    return least_loss(
        options, losses, [partial(_share, domain.budget.metrics[x.metric], x) for x in domain.budget.limits]
    )


def _share(metric: Callable[[IntArray], FloatArray], limit: Limit, rows: IntArray) -> FloatArray:
    return metric(rows) / min(limit.upper, limit.full)


def _summed(domain: BudgetedSpace, scores: Sequence[FloatArray], points: int) -> list[Curve]:
    if not isinstance(points, int) or isinstance(points, bool) or points < 1:
        raise ConfigError(f"knapsack: points must be a whole number of at least 1, got {points!r}")
    curves = []
    for group, of_group in zip(domain.space.groups, scores, strict=True):
        widths = np.array([*grid(group, points), group.width])
        cut = np.concatenate([[0.0], np.cumsum(np.sort(of_group))])[::-1]  # [c]: of all but the c best
        curves.append(Curve(widths, cut[widths]))
    return curves
