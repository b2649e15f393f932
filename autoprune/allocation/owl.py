"""Outlier weighed layer-wise sparsity: Yin et al. 2024, OWL, arXiv 2310.05175, section 3.2."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from autoprune.allocation.base import allocation
from autoprune.allocation.parts.path import widest_inside
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import ConfigError
from autoprune.space.groups import FloatArray, Widths

_PATH = 513
"""Networks of the path from the sparsest to the full one."""


@allocation("slots", criterion="wanda")
def owl(
    domain: BudgetedSpace,
    scores: Sequence[FloatArray],
    *,
    slots: Sequence[FloatArray],
    outlier: float = 5.0,
    spread: float = 0.08,
) -> Widths:
    """Layers with more outliers among the scores of their weights stay denser.

    D_l is the share of a layer's weights whose score is above `outlier` times the layer's mean. The density of layer l
    is d + 2 λ (D_l - min D) / (max D - min D), less the mean of that term over the layers, so that it strays from the
    mean density d by at most 2 λ; d is what meets the budget. That is the authors' code, for layers in place of
    whole transformer blocks. For widths, channels take the place of weights. Unlabelled data, as Wanda's scores need.

    Args:
        domain: the space under its budget.
        scores: not looked at.
        slots: per group, the scores of single weights (of channels).
        outlier: M, so many times the mean; 5 or 7 in the paper.
        spread: λ; 0.08 in the paper.

    Raises:
        ConfigError: a setting out of its range.
    """
    for name, value, most in (("outlier", outlier, math.inf), ("spread", spread, 1.0)):
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < most:
            raise ConfigError(f"owl: {name} must be a number above 0 and below {most:g}, got {value!r}")
    shares = outlier_shares(slots, outlier)
    reach = shares.max() - shares.min()
    term = 2 * spread * (shares - shares.min()) / (reach or 1.0)
    full = np.array(domain.space.full, dtype=np.float64)
    means = np.linspace(-1.0, 2.0, _PATH)[:, None]  # beyond 0 and 1: the last of the path must be full
    ratios = np.clip(means + term - term.mean(), 0.0, 1.0)
    held = ~domain.space.kinds.scales
    ratios[:, held] = 1.0
    return widest_inside(domain, ratios * full)


def outlier_shares(slots: Sequence[FloatArray], outlier: float) -> FloatArray:
    """(G,) share of each group's scores that are above so many times their mean."""
    return np.array([float((s > outlier * s.mean()).mean()) for s in slots])
