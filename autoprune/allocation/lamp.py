"""Layer-adaptive magnitude pruning: Lee et al. 2021, Layer-adaptive Sparsity, arXiv 2010.07611, section 3."""

from __future__ import annotations

from collections.abc import Sequence

from autoprune.allocation.base import allocation
from autoprune.allocation.parts.path import kept_counts, widest_inside
from autoprune.allocation.parts.scores import checked_scores
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.space.groups import FloatArray, Widths


@allocation(criterion="lamp")
def lamp(domain: BudgetedSpace, scores: Sequence[FloatArray]) -> Widths:
    """Keep what scores above one threshold over all layers, by the LAMP score.

    For densities a step of a layer has the mean score of its weights, as layers have steps of different sizes: the
    paper's rule, to a step. For widths the scores are those of channels (see the criterion `lamp`). The strongest
    weight of every layer scores 1, so that no threshold empties a layer. No data.

    Args:
        domain: the space under its budget.
        scores: per group, (width,) LAMP scores of its channels or steps.

    Raises:
        ConfigError: scores that do not fit the groups.
    """
    checked = checked_scores("lamp", domain, scores)
    for group, density in domain.space.sparse.values():
        weights = [density.step] * density.steps
        weights[0] += density.units - density.step * density.steps
        checked[group] = checked[group] / weights
    return widest_inside(domain, kept_counts(checked))
