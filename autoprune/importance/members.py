"""Scores of the channels of all groups, and their order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from autoprune.config.parts import ChosenPart
from autoprune.errors import ConfigError, EvaluationError, blame
from autoprune.importance.evidence import Calibration, GroupEvidence, NetworkEvidence
from autoprune.importance.gathering import Gathered, gather
from autoprune.importance.group import group_evidence, group_tensors
from autoprune.importance.needs import RUN
from autoprune.importance.scoring import Scoring
from autoprune.space.cutting.slicing import Ranking, check_model
from autoprune.space.groups import FloatArray, SearchSpace
from autoprune.space.kinds import KINDS
from autoprune.space.options.ties import rank_slots, set_ranges

__all__ = [
    "Criterion",
    "GroupEvidence",
    "GroupTensors",
    "NetworkEvidence",
    "channel_scores",
    "group_evidence",
    "group_tensors",
    "rank_channels",
    "ranking_of",
    "unit_scores",
]

GroupTensors = GroupEvidence
"""The name that it had before criteria could ask for more than weights."""

Criterion: TypeAlias = Callable[[GroupEvidence, np.random.Generator], Tensor]
"""(evidence of a group, random generator) -> (width,) importance, at least 0; the tensors are only read. Keywords after
these two are its settings; what it needs besides weights is said by `evidence.criterion`."""


def channel_scores(
    model: nn.Module,
    space: SearchSpace,
    criterion: ChosenPart,
    *,
    seed: int = 0,
    calibration: Calibration | None = None,
) -> list[FloatArray]:
    """Score every channel of every group, each tied set by itself; the model is only read.

    Args:
        model: the network that was traced.
        space: its space.
        criterion: a name, or {"name": …, "settings": {…}}.
        seed: of the criterion, where it is random.
        calibration: data, for a criterion that needs more than weights.

    Returns:
        Per group (slots,) scores; a slot is a channel. A block that can be left out has the score 1.

    Raises:
        RegistryError: no such criterion.
        ConfigError: a setting that it does not have, it fails, or data that it needs are missing.
        SpaceError: the model is not the one that was traced.
        EvaluationError: the criterion gave a wrong shape or something that is not a finite number.
    """
    scoring = Scoring.of(criterion)
    what = f"criterion {scoring.label!r}"
    check_model(model, space)
    gathered = gather(model, space, scoring.needs, calibration, what=what)
    network = _network(model, space, scoring, gathered, calibration)
    failing = blame(ConfigError, f"{what} fails", then="Correct its settings or its code.")
    with failing, torch.no_grad():
        found = scoring.of_network(network, np.random.default_rng(seed))
    if len(found) != len(network.groups):
        raise EvaluationError(f"{what} must give scores of {len(network.groups)} sets of channels, got {len(found)}")
    scores = [
        np.zeros(group.slots) if KINDS[group.kind].ranked else np.ones(group.slots)  # a block as a whole: not ranked
        for group in space.groups
    ]
    for (index, start, width), values in zip(network.places, found, strict=True):
        scores[index][start : start + width] = scoring.checked(values, width, space.groups[index].name)
    return scores


def _network(
    model: nn.Module, space: SearchSpace, scoring: Scoring, gathered: Gathered | None, calibration: Calibration | None
) -> NetworkEvidence:
    """The evidence of all groups; raises EvaluationError where some of what is needed was not seen."""
    groups, places = [], []
    for index, group in enumerate(space.groups):
        if not KINDS[group.kind].ranked:
            continue
        for number, (start, width) in enumerate(set_ranges(group)):
            evidence = group_evidence(model, space, index, number, needs=scoring.needs, gathered=gathered)
            _check_seen(evidence, scoring, group.name)
            groups.append(evidence)
            places.append((index, start, width))
    return NetworkEvidence(tuple(groups), tuple(places), model, space, calibration)


def rank_channels(
    model: nn.Module,
    space: SearchSpace,
    criterion: ChosenPart,
    *,
    seed: int = 0,
    calibration: Calibration | None = None,
) -> Ranking:
    """Sort the channels of every group once, most important first."""
    return ranking_of(space, channel_scores(model, space, criterion, seed=seed, calibration=calibration))


def ranking_of(space: SearchSpace, scores: Sequence[FloatArray]) -> Ranking:
    """Rank the channels of every group by their (slots,) scores, those of each tied set among themselves."""
    return tuple(rank_slots(group, score) for group, score in zip(space.groups, scores, strict=True))


def unit_scores(space: SearchSpace, scores: Sequence[FloatArray]) -> list[FloatArray]:
    """Per group (width,) scores, what one more unit of width brings: the sum over the channels that come with it.

    They are the (slots,) channel scores themselves where nothing is tied.
    """
    ranking = ranking_of(space, scores)
    return [
        np.bincount(rank, weights=score, minlength=group.width).astype(np.float64) if group.sets else score
        for group, rank, score in zip(space.groups, ranking, scores, strict=True)
    ]


def _check_seen(evidence: GroupEvidence, scoring: Scoring, group: str) -> None:
    """Check that all that was to be gathered of a group was; raises EvaluationError."""
    for need in sorted(RUN & scoring.needs):
        if getattr(evidence, need) is None:
            raise EvaluationError(
                f"criterion {scoring.label!r} needs {need}, and no convolution or matrix product was seen that reads "
                f"the channels of group {group!r} (a fused operator hides it): choose a criterion of weights, or "
                f"exclude that group"
            )
