"""Scores of criteria that run the network, of all groups at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from autoprune.errors import ConfigError, blame
from autoprune.importance.checks import checked_scores
from autoprune.importance.evidence import Calibration, Need, check_data
from autoprune.importance.network import NetworkEvidence
from autoprune.randomness import seeded
from autoprune.space.groups import FloatArray, SearchSpace
from autoprune.space.kinds import KINDS

NetworkCriterion: TypeAlias = Callable[[NetworkEvidence, np.random.Generator], Tensor]
"""(network, random generator) -> (channels,) importances of all groups, at least 0. Keywords after these two are its
settings; it is marked with `evidence.criterion("outputs")` or `("losses")`."""


def network_scores(
    score: NetworkCriterion,
    model: nn.Module,
    space: SearchSpace,
    needs: frozenset[Need],
    calibration: Calibration | None,
    rng: np.random.Generator,
    *,
    what: str,
) -> list[FloatArray]:
    """Score the channels of all groups at once; the model is only read.

    Args:
        score: the criterion, its settings bound.
        model: the network that was traced.
        space: its space.
        needs: what the criterion needs.
        calibration: the data.
        rng: for criteria that draw.
        what: who asks, for messages.

    Returns:
        Per group (slots,) scores; 1 where a group is one block.

    Raises:
        ConfigError: there are no data, or no loss where one is needed; or the criterion fails.
        EvaluationError: no data with finite values, channels that cannot be gated, or scores that are not finite.
    """
    network = NetworkEvidence(model, space, check_data(needs, calibration, what=what), what=what)
    failing = blame(ConfigError, f"{what} fails", then="Correct its settings or its code.")
    with failing, seeded(0), torch.enable_grad():
        given = score(network, rng)
    values = checked_scores(given, network.channels, what=what, whose="all groups together", cause="weights or losses")
    scores, start = [], 0
    for group in space.groups:
        number = group.slots if KINDS[group.kind].ranked else 0
        scores.append(values[start : start + number] if number else np.ones(group.slots))
        start += number
    return scores
