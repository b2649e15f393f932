"""What the one-shot rules of a job are called with: scores by any criterion, filters, and networks that are scored."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from torch import nn

from autoprune.allocation.base import Filters, Probe
from autoprune.config.parts import NamedPart
from autoprune.cost.polynomial import log_widths
from autoprune.importance.filters import group_filters
from autoprune.importance.members import unit_scores
from autoprune.space.groups import FloatArray, SearchSpace, Widths
from autoprune.verdict.rules import RuleInputs


def rule_inputs(
    space: SearchSpace,
    base: nn.Module,
    channel_scores: Callable[[NamedPart], Sequence[FloatArray]],
    probe: Probe | None = None,
) -> RuleInputs:
    """What rules can ask for; each thing is made when the first of them asks, and once.

    Args:
        space: of the base network.
        base: the base network; only read.
        channel_scores: criterion -> per group the scores of the channels.
        probe: scores networks; None: nothing is scored, a formula stands in (for trying whether rules run).
    """
    by_criterion: dict[str, Sequence[FloatArray]] = {}
    filters: list[Filters] = []

    def slots(criterion: NamedPart) -> Sequence[FloatArray]:
        if criterion.label not in by_criterion:
            by_criterion[criterion.label] = channel_scores(criterion)
        return by_criterion[criterion.label]

    def scores(criterion: NamedPart) -> Sequence[FloatArray]:
        return unit_scores(space, slots(criterion))

    def of_base() -> Filters:
        if not filters:
            filters.append(group_filters(base, space))
        return filters[0]

    return RuleInputs(scores, of_base, _formula if probe is None else probe, slots)


def _formula(rows: Sequence[Widths]) -> FloatArray:
    scores: FloatArray = log_widths(np.array(rows)).sum(axis=1)
    return scores
