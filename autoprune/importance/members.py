"""What a criterion sees of a group: the tensors that its channels own, one row per channel, aligned over members."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias, final

import numpy as np
import torch
from torch import Tensor, nn

from autoprune.errors import EvaluationError
from autoprune.importance import CRITERIA
from autoprune.space.groups import AxisLayout, FloatArray, SearchSpace
from autoprune.space.slicing import Ranking, check_model, ranking_from_scores, tensor_of


@final
@dataclass(frozen=True, slots=True, eq=False)
class GroupTensors:
    """The tensors of one width group.

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
"""(tensors of a group, random generator) -> (width,) importance, at least 0; the tensors are only read."""


def channel_scores(model: nn.Module, space: SearchSpace, criterion: str, *, seed: int = 0) -> list[FloatArray]:
    """Score every channel of every group; the model is only read.

    Raises:
        RegistryError: no such criterion.
        SpaceError: the model is not the one that was traced.
        EvaluationError: the criterion gave a wrong shape or something that is not a finite number.
    """
    score: Criterion = CRITERIA.get(criterion)
    check_model(model, space)
    rng = np.random.default_rng(seed)
    scores = []
    for index, group in enumerate(space.groups):
        with torch.no_grad():
            values = score(group_tensors(model, space, index), rng).double().cpu().numpy()
        if values.shape != (group.width,) or not np.isfinite(values).all():
            raise EvaluationError(
                f"criterion {criterion!r} must give {group.width} finite numbers for group {group.name!r}, got shape "
                f"{values.shape}; weights that are not finite cause this: check the base network"
            )
        scores.append(values)
    return scores


def rank_channels(model: nn.Module, space: SearchSpace, criterion: str, *, seed: int = 0) -> Ranking:
    """Sort the channels of every group once, most important first."""
    return ranking_from_scores(channel_scores(model, space, criterion, seed=seed))


def group_tensors(model: nn.Module, space: SearchSpace, group: int) -> GroupTensors:
    """Collect what the channels of one group own, rows in channel order."""
    written: list[Tensor] = []
    read: list[Tensor] = []
    scales: list[Tensor] = []
    norms = {name for name, module in model.named_modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)}
    for layout in space.tensors:
        axes = {d: axis for d, axis in enumerate(layout.axes) if axis is not None and (axis.group == group).any()}
        if layout.kind == "buffer" or not axes:
            continue
        dim = min(axes, key=layout.reads.__contains__)  # the first one that writes
        rows = _rows(tensor_of(model, layout.name).detach(), dim, axes[dim], group, space.groups[group].width)
        path, _, attribute = layout.name.rpartition(".")
        if path not in norms:
            (read if dim in layout.reads else written).append(rows)
        elif attribute == "weight":
            scales.append(rows.flatten())
    return GroupTensors(space.groups[group].width, tuple(written or read), tuple(scales))


def _rows(tensor: Tensor, dim: int, axis: AxisLayout, group: int, width: int) -> Tensor:
    """(width, n): all entries of each channel, also where a channel has several indices."""
    inside = np.flatnonzero(axis.group == group)
    order = inside[np.argsort(axis.channel[inside], kind="stable")]
    picked = tensor.index_select(dim, torch.from_numpy(order).to(tensor.device)).movedim(dim, 0)
    return picked.reshape(width, -1)
