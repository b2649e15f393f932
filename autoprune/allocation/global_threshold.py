"""One importance threshold for the whole network: each group keeps as many channels as score above it.

Network Slimming (Liu et al. 2017, arXiv 1708.06519, section 3.2) thresholds all scaling factors at once; Molchanov et
al. 2017 (arXiv 1611.06440, section 2.2) divide a layer's scores by their L2 norm first, so that layers compare.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoprune.allocation.parts.path import kept_counts, widest_inside
from autoprune.allocation.parts.scores import Normalisation, checked_scores, normalised, one_of
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.space.groups import FloatArray, Widths


def global_threshold(
    domain: BudgetedSpace,
    scores: Sequence[FloatArray],
    *,
    normalise: Normalisation = "l2",
    per_cost: str | None = None,
) -> Widths:
    """Return the widths that the lowest threshold within the budget leaves, rounded and repaired.

    No group falls below its smallest choice. Between two neighbouring thresholds, which may be far apart where many
    channels tie, the kept counts are interpolated to meet the budget.

    With `per_cost` the scores are divided by what one channel of the group costs: where costs add up, keeping channels
    in the order of score per cost is the greedy solution of the knapsack (Dantzig 1957), which HALP (Shen et al. 2022,
    arXiv 2110.10811, section 3.2) poses with importance as value and latency as weight. It departs from Molchanov et
    al., who subtract a multiple of the FLOPs (section 2.2), as a multiple is one more thing to choose.

    Args:
        domain: the space under its budget.
        scores: per group, (width,) importances of its channels, not negative.
        normalise: what the scores of a group are divided by: "l2", "mean", "max" or "none".
        per_cost: a metric, or "budget" for the share of the tightest limit; None: scores count as they are. The cost of
            a channel is the mean over all channels that its group can lose while the others are full.

    Raises:
        ConfigError: an unknown normalisation or metric, or scores that do not fit the groups.
    """
    what = "global_threshold"
    one_of(what, "normalise", normalise, ("l2", "mean", "max", "none"))
    ranked = normalised(what, checked_scores(what, domain, scores), normalise)
    if per_cost is not None:
        one_of(what, "per_cost", per_cost, (*domain.budget.metrics, "budget"))
        ranked = [s / cost for s, cost in zip(ranked, _cost_of_a_channel(domain, per_cost), strict=True)]
    return widest_inside(domain, kept_counts(ranked))


def _cost_of_a_channel(domain: BudgetedSpace, metric: str) -> FloatArray:
    """(G,) what a channel of each group costs; above 0, as some cost nothing that a metric counts."""
    cost = domain.budget.usage if metric == "budget" else domain.budget.metrics[metric]
    full, smallest = np.array(domain.space.full), np.array(domain.space.smallest)
    cut = np.where(np.eye(len(full), dtype=np.bool_), smallest, full)
    saved = (cost(full[None, :]) - cost(cut)) / np.maximum(full - smallest, 1)
    costs: FloatArray = np.maximum(saved, 1e-9 * (float(saved.max(initial=0.0)) or 1.0))
    return costs
