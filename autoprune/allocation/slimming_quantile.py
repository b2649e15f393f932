"""One quantile of all batch norm scales of the network: Liu et al., Network Slimming, ICCV 2017 (arXiv 1708.06519)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoprune.allocation.base import allocation
from autoprune.allocation.parts.path import kept_counts, repaired, widest_inside
from autoprune.allocation.parts.scores import checked_scores
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import ConfigError
from autoprune.space.groups import FloatArray, Widths


@allocation(criterion="bn_scale")
def slimming_quantile(domain: BudgetedSpace, scores: Sequence[FloatArray], *, quantile: float | None = None) -> Widths:
    """Keep the channels whose |gamma| is above one quantile of those of all layers (section 3.2), not normalised.

    The scales mean something across layers in networks that were trained with an L1 penalty on them; without one they
    are what the initialisation and weight decay left. The paper has no guard against a layer without channels, here
    none falls below its smallest choice. Needs scores of the criterion `bn_scale`, no data.

    Args:
        domain: the space under its budget.
        scores: per group, (width,) scales.
        quantile: share of all channels that is cut, in [0, 1), as the paper sets it; the widths are then scaled onto
            the budget. None: the one that meets the budget.

    Raises:
        ConfigError: scores that do not fit the groups, or a quantile outside its range.
    """
    what = "slimming_quantile"
    ranked = checked_scores(what, domain, scores)
    if quantile is None:
        return widest_inside(domain, kept_counts(ranked))
    if not 0 <= quantile < 1:
        raise ConfigError(f"{what}: quantile must be at least 0 and below 1, got {quantile}")
    everything = np.sort(np.concatenate(ranked))
    threshold = everything[int(len(everything) * quantile)]
    counts = np.array([(s > threshold).sum() if quantile else len(s) for s in ranked])
    return repaired(domain, np.maximum(counts, domain.space.smallest))
