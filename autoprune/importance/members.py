"""What a criterion sees of a group: the tensors that its channels own, one row per channel, aligned over members."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias, final

import numpy as np
import torch
from torch import Tensor, nn

from autoprune.config.parts import ChosenPart, NamedPart
from autoprune.config.settings import bind
from autoprune.errors import ConfigError, EvaluationError, blame
from autoprune.importance import CRITERIA
from autoprune.space.cutting.slicing import Ranking, check_model, tensor_of
from autoprune.space.groups import AxisLayout, BoolArray, FloatArray, SearchSpace
from autoprune.space.kinds import KINDS
from autoprune.space.options.ties import rank_slots, set_ranges


@final
@dataclass(frozen=True, slots=True, eq=False)
class GroupTensors:
    """The tensors of one width group, or of one of the sets that are tied in it.

    Attributes:
        width: number of channels.
        filters: one (width, n) tensor per weight or bias that writes the channels; where none does (an embedding tied
            to the last layer), one per weight that reads them.
        norm_scales: one (width,) tensor per batch norm of the group.
    """

    width: int
    filters: tuple[Tensor, ...]
    norm_scales: tuple[Tensor, ...]


Criterion: TypeAlias = Callable[[GroupTensors, np.random.Generator], Tensor]
"""(tensors of a group, random generator) -> (width,) importance, at least 0; the tensors are only read. Keywords after
these two are its settings."""


def channel_scores(model: nn.Module, space: SearchSpace, criterion: ChosenPart, *, seed: int = 0) -> list[FloatArray]:
    """Score every channel of every group, each tied set by itself; the model is only read.

    Args:
        model: the network that was traced.
        space: its space.
        criterion: a name, or {"name": …, "settings": {…}}.
        seed: of the criterion, where it is random.

    Returns:
        Per group (slots,) scores; a slot is a channel. A block that can be left out has the score 1.

    Raises:
        RegistryError: no such criterion.
        ConfigError: a setting that it does not have, or it fails.
        SpaceError: the model is not the one that was traced.
        EvaluationError: the criterion gave a wrong shape or something that is not a finite number.
    """
    chosen = NamedPart.of(criterion, "criterion")
    score: Criterion = bind(CRITERIA, chosen.name, chosen.settings)
    what = f"criterion {chosen.label!r}"
    check_model(model, space)
    rng = np.random.default_rng(seed)
    scores = []
    for index, group in enumerate(space.groups):
        if not KINDS[group.kind].ranked:  # a block as a whole: nothing to rank
            scores.append(np.ones(group.slots))
            continue
        of_sets = []
        for number, (_, width) in enumerate(set_ranges(group)):
            failing = blame(ConfigError, f"{what} fails", then="Correct its settings or its code.")
            with failing, torch.no_grad():
                values = score(group_tensors(model, space, index, number), rng).double().cpu().numpy()
            if values.shape != (width,) or not np.isfinite(values).all():
                raise EvaluationError(
                    f"{what} must give {width} finite numbers for group {group.name!r}, got shape "
                    f"{values.shape}; weights that are not finite cause this: check the base network"
                )
            of_sets.append(values)
        scores.append(np.concatenate(of_sets))
    return scores


def rank_channels(model: nn.Module, space: SearchSpace, criterion: ChosenPart, *, seed: int = 0) -> Ranking:
    """Sort the channels of every group once, most important first."""
    return ranking_of(space, channel_scores(model, space, criterion, seed=seed))


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


def group_tensors(model: nn.Module, space: SearchSpace, group: int, number: int = 0) -> GroupTensors:
    """Collect what the channels of one group own, rows in channel order.

    Args:
        model: the network that was traced; only read.
        space: its space.
        group: index of the group.
        number: which of the group's tied sets; 0 where nothing is tied.
    """
    written: list[Tensor] = []
    read: list[Tensor] = []
    scales: list[Tensor] = []
    norms = {name for name, module in model.named_modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)}
    start, width = list(set_ranges(space.groups[group]))[number]

    def inside(axis: AxisLayout) -> BoolArray:
        mine: BoolArray = (axis.group == group) & (axis.channel >= start) & (axis.channel < start + width)
        return mine

    for layout in space.tensors:
        axes = {d: axis for d, axis in enumerate(layout.axes) if axis is not None and inside(axis).any()}
        if layout.kind == "buffer" or not axes:
            continue
        dim = min(axes, key=layout.reads.__contains__)  # the first one that writes
        rows = _rows(tensor_of(model, layout.name).detach(), dim, axes[dim], inside(axes[dim]), width)
        path, _, attribute = layout.name.rpartition(".")
        if path not in norms:
            (read if dim in layout.reads else written).append(rows)
        elif attribute == "weight":
            scales.append(rows.flatten())
    return GroupTensors(width, tuple(written or read), tuple(scales))


def _rows(tensor: Tensor, dim: int, axis: AxisLayout, chosen: BoolArray, width: int) -> Tensor:
    """(width, n): all entries of each channel, also where a channel has several indices."""
    indices = np.flatnonzero(chosen)
    order = indices[np.argsort(axis.channel[indices], kind="stable")]
    picked = tensor.index_select(dim, torch.from_numpy(order).to(tensor.device)).movedim(dim, 0)
    return picked.reshape(width, -1)
