"""One ratio for each stage: Li et al. 2017, Pruning Filters for Efficient ConvNets, arXiv 1608.08710, section 3.3."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoprune.allocation.parts.path import at_ratios, kept_counts, widest_inside
from autoprune.allocation.parts.scores import Normalisation, checked_scores, normalised
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import ConfigError
from autoprune.space.groups import FloatArray, SearchSpace, Widths


def stagewise(
    domain: BudgetedSpace,
    scores: Sequence[FloatArray],
    *,
    ratios: Sequence[float] | None = None,
    normalise: Normalisation = "mean",
) -> Widths:
    """Give all groups of a stage (equal numbers of output positions) one ratio.

    Li et al. prune all layers of a stage alike, as layers at one size of feature map are about equally sensitive, and
    set the ratios by hand; for ResNet-56-B they keep 0.4, 0.7 and 0.9. Those are `ratios`, scaled by one factor onto
    the budget. Without them the scores decide, which is ours: one threshold on the normalised scores of all groups, and
    a stage keeps the share of its channels that score above it.

    Args:
        domain: the space under its budget.
        scores: per group, (width,) importances of its channels, not negative.
        ratios: one for each stage, above 0, the stage with the most positions first.
        normalise: what the scores of a group are divided by: "mean", "l2", "max" or "none"; not used with `ratios`.

    Raises:
        ConfigError: an unknown normalisation, scores that do not fit the groups, or ratios that do not fit the stages.
    """
    space = domain.space
    stages = stages_of(space)
    if ratios is not None:
        return at_ratios(domain, _given(space, stages, ratios))
    ranked = normalised("stagewise", checked_scores("stagewise", domain, scores), normalise)
    pooled = kept_counts([np.concatenate([ranked[g] for g in stage]) for stage in stages])
    channels = np.array([sum(space.groups[g].width for g in stage) for stage in stages])
    rows = np.repeat(np.array([space.full], dtype=np.float64), len(pooled), axis=0)
    for number, stage in enumerate(stages):
        rows[:, stage] *= (pooled[:, number] / channels[number])[:, None]
    held = ~space.kinds.scales
    rows[:, held] = np.array(space.full)[held]
    if domain.budget.usage(np.maximum(rows[:1], space.smallest))[0] > 1.0:  # not with all blocks
        rows[:, held] = np.linspace(0.0, 1.0, len(rows))[:, None]
    return widest_inside(domain, rows)


def stages_of(space: SearchSpace) -> list[list[int]]:
    """The indices of the groups of each stage, the one with the most positions first; what does not scale is in none.

    Everything is one stage where nothing scales.
    """
    scales = [g for g in range(len(space.groups)) if space.kinds.scales[g]] or list(range(len(space.groups)))
    positions = sorted({space.groups[g].positions for g in scales}, reverse=True)
    return [[g for g in scales if space.groups[g].positions == number] for number in positions]


def _given(space: SearchSpace, stages: Sequence[Sequence[int]], ratios: Sequence[float]) -> FloatArray:
    numbers = isinstance(ratios, list | tuple) and all(
        isinstance(r, int | float) and not isinstance(r, bool) and 0 < r < np.inf for r in ratios
    )
    if not numbers or len(ratios) != len(stages):
        told = "; ".join(f"{space.groups[s[0]].positions} positions: {len(s)} groups" for s in stages)
        raise ConfigError(
            f"stagewise: ratios must be {len(stages)} numbers above 0, one for each stage ({told}), got {ratios!r}"
        )
    found = np.ones(len(space.groups))
    for stage, ratio in zip(stages, ratios, strict=True):
        found[stage] = ratio
    return found
