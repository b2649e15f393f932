"""Channels that are zero unusually often for their layer: Hu et al. 2016, Network Trimming, arXiv 1607.03250."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoprune.allocation.base import allocation
from autoprune.allocation.parts.path import kept_counts, widest_inside
from autoprune.allocation.parts.scores import checked_scores
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.space.groups import FloatArray, Widths

_ALIKE = 1e-9  # scores of a layer that differ by less, relative to their size, are the same


@allocation(criterion="apoz")
def apoz_sigma(domain: BudgetedSpace, scores: Sequence[FloatArray]) -> Widths:
    """Cut the channels whose share of zeros is above mean + k σ of their layer (section 3.2), with one k for all.

    The paper takes k = 1 and iterates with retraining; here k is what meets the budget at once, and may be negative.
    In terms of scores, 1 - APoZ, a channel stays where (score - mean) / σ is at least -k. A layer whose channels are
    all alike goes with what is average. Needs scores of the criterion `apoz`, so data and forward passes, no labels.

    Args:
        domain: the space under its budget.
        scores: per group, (width,) shares of values that are not zero.

    Raises:
        ConfigError: scores that do not fit the groups.
    """
    return widest_inside(domain, kept_counts([_standardised(s) for s in checked_scores("apoz_sigma", domain, scores)]))


def _standardised(scores: FloatArray) -> FloatArray:
    centred = scores - scores.mean()
    deviation = float(scores.std())
    scaled: FloatArray = centred / (deviation if deviation > _ALIKE * float(scores.max()) else np.inf)
    return scaled
