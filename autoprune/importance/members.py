"""Scores of the channels of all groups, and their order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from autoprune.config.parts import ChosenPart
from autoprune.errors import ConfigError, EvaluationError, blame
from autoprune.importance.checks import checked_scores
from autoprune.importance.evidence import Calibration, GroupEvidence
from autoprune.importance.gathering import gather
from autoprune.importance.group import group_evidence, group_tensors
from autoprune.importance.needs import NETWORK, RUN
from autoprune.importance.network_scores import network_scores
from autoprune.importance.scoring import ChosenCriterion
from autoprune.importance.single import check_single, single_weights
from autoprune.space.cutting.factored import decomposed
from autoprune.space.cutting.rounded import rounded
from autoprune.space.cutting.slicing import Ranking, check_model, tensor_of
from autoprune.space.groups import FloatArray, SearchSpace, WidthGroup
from autoprune.space.kinds import KINDS
from autoprune.space.options.ties import rank_slots, set_ranges

__all__ = [
    "Criterion",
    "GroupEvidence",
    "GroupTensors",
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
        Per group (slots,) scores; a slot is a channel, or a single weight (or block of them) of a density. A residual
        block that can be left out has the score 1.

    Raises:
        RegistryError: no such criterion.
        ConfigError: a setting that it does not have, it fails, or data that it needs are missing.
        SpaceError: the model is not the one that was traced.
        EvaluationError: the criterion gave a wrong shape or something that is not a finite number.
    """
    scoring, rng = ChosenCriterion.of(criterion), np.random.default_rng(seed)
    what = f"criterion {scoring.label!r}"
    check_model(model, space)
    if space.factors:
        return singular_values(model, space)
    if space.only_bits:
        return errors_saved(model, space, [np.zeros(0)] * len(space.groups))
    if space.densities:
        check_single(scoring, what)
    if scoring.needs & NETWORK:
        found = network_scores(scoring.score, model, space, scoring.needs, calibration, rng, what=what)
        by_set = [_by_set(group, scores, scoring.normalised) for group, scores in zip(space.groups, found, strict=True)]
        return errors_saved(model, space, by_set)
    if space.densities:
        found = single_weights(model, space, scoring, calibration, rng, what=what)
        return [scoring.normalised(scores) for scores in found]
    gathered = gather(model, space, scoring.needs, calibration, what=what)

    def of_set(index: int, number: int) -> FloatArray:
        group = space.groups[index]
        evidence = group_evidence(model, space, index, number, needs=scoring.needs, gathered=gathered)
        _check_seen(evidence, scoring, group.name)
        failing = blame(ConfigError, f"{what} fails", then="Correct its settings or its code.")
        with failing, torch.no_grad():
            scores = scoring(evidence, rng)
        whose = f"group {group.name!r}"
        return scoring.normalised(checked_scores(scores, evidence.width, what=what, whose=whose, cause="weights"))

    scores = [
        np.concatenate([of_set(index, number) for number, _ in enumerate(set_ranges(group))])
        if KINDS[group.kind].ranked
        else np.ones(group.slots)  # a block as a whole: nothing to rank
        for index, group in enumerate(space.groups)
    ]
    return errors_saved(model, space, scores)


def singular_values(model: nn.Module, space: SearchSpace) -> list[FloatArray]:
    """Per group of ranks, the squares of singular values, the last one of all that only the layer itself has.

    Whatever the criterion: components of factors have an order of their own.
    """
    found = []
    for group, factors in sorted(space.factored.values(), key=lambda entry: entry[0]):
        squares = decomposed(tensor_of(model, factors.tensor)).values.square().cpu().numpy()
        low = np.zeros(space.groups[group].width)
        low[: min(factors.highest, len(squares))] = squares[: factors.highest]
        low[-1] += squares[factors.highest :].sum()
        found.append(low)
    return found


def errors_saved(model: nn.Module, space: SearchSpace, scores: Sequence[FloatArray]) -> list[FloatArray]:
    """The scores, those of groups of bits by what each bit saves of the squared error of the weights, descending.

    Whatever the criterion: bits have an order of their own. No error is computed between 0 and 2 bits and from 8 to the
    full ones; what is saved there is shared out evenly.
    """
    found, measured = list(scores), (0, 2, 3, 4, 5, 6, 7, 8)
    for group, layer in space.rounded.values():
        weight = tensor_of(model, layer.tensor).detach()
        made = (torch.zeros_like(weight), *(rounded(weight, bits, layer.outputs) for bits in measured[1:]), weight)
        errors = [float((one - weight).double().square().sum()) for one in made]
        places = np.interp(np.arange(layer.full + 1), (*measured, layer.full), errors)
        found[group] = np.sort(np.maximum(-np.diff(places), 0.0))[::-1].copy()
    return found


def _by_set(group: WidthGroup, scores: FloatArray, change: Callable[[FloatArray], FloatArray]) -> FloatArray:
    if not KINDS[group.kind].ranked:
        return scores
    return np.concatenate([change(scores[start : start + width]) for start, width in set_ranges(group)])


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


def _check_seen(evidence: GroupEvidence, scoring: ChosenCriterion, group: str) -> None:
    """Check that all that was to be gathered of a group was; raises EvaluationError."""
    for need in sorted(RUN & scoring.needs):
        if getattr(evidence, need) is None:
            raise EvaluationError(
                f"criterion {scoring.label!r} needs {need}, and no convolution or matrix product was seen that reads "
                f"the channels of group {group!r} (a fused operator hides it): choose a criterion of weights, or "
                f"exclude that group"
            )
