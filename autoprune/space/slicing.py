"""Slicing: a candidate network is a copy of the module whose tensors keep some of their indices.

Channels are ranked once per group by importance; a candidate keeps the best ones, in their original order.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from autoprune.errors import SpaceError
from autoprune.space.attributes import adapt_attributes
from autoprune.space.blocks import Skip
from autoprune.space.groups import AxisLayout, IntArray, SearchSpace, Widths

Ranking: TypeAlias = tuple[IntArray, ...]
"""Per group: (slots,) rank of each channel (of its unit, inside its own set, where sets are tied); 0 is the best."""


def ranking_from_scores(scores: Sequence[np.ndarray[Any, Any]]) -> Ranking:
    """Rank channels by importance, higher first; ties keep their order."""
    ranks = []
    for score in scores:
        rank = np.empty(len(score), dtype=np.int64)
        rank[np.argsort(-np.asarray(score), kind="stable")] = np.arange(len(score))
        ranks.append(rank)
    return tuple(ranks)


def random_ranking(space: SearchSpace, rng: np.random.Generator) -> Ranking:
    """An order of the channels of every group by chance; tied sets each have their own."""
    return tuple(
        np.concatenate([rng.permutation(n) * group.width // n for n in group.sets or (group.width,)])
        for group in space.groups
    )


def slice_model(model: nn.Module, space: SearchSpace, widths: Widths, ranking: Ranking) -> nn.Module:
    """Build the network of these widths; the same class as `model`, trainable, sharing nothing with it.

    Args:
        model: the network that was traced, in the form of the space (`graph_form.network_for`); only read.
        space: its space.
        widths: member of the space.
        ranking: which channels to keep first.

    Raises:
        SpaceError: the widths are not in the space, or the model is not the one that was traced.
    """
    space.check(widths)
    check_model(model, space)
    kept = _KeptIndices(widths, ranking)
    blocks = space.left_out(widths)
    gone = {name for block in blocks for name in block.tensors}
    replaced: dict[int, Any] = {}  # deepcopy's memo: cut tensors and blocks that go are never copied whole
    replaced |= {id(model.get_submodule(block.name)): Skip(block) for block in blocks}
    for layout in (layout for layout in space.tensors if layout.name not in gone):
        full = tensor_of(model, layout.name)
        cut = full.detach()
        for dim, axis in enumerate(layout.axes):
            if axis is not None:
                cut = cut.index_select(dim, kept.of(axis, cut.device))
        if cut.data_ptr() == full.data_ptr():
            continue  # untouched: deepcopy copies it
        replaced[id(full)] = nn.Parameter(cut, full.requires_grad) if isinstance(full, nn.Parameter) else cut
    for module in model.modules():  # two dozen empty hook tables each, most of what copying a deep network costs
        tables = (value for value in vars(module).values() if type(value) is OrderedDict and not value)
        replaced.update((id(table), OrderedDict()) for table in tables)
    sliced = copy.deepcopy(model, replaced)
    adapt_attributes(model, sliced, space, widths)
    if space.form == "graph":
        sliced.follow_widths(widths)  # type: ignore[operator]
    return sliced


def check_model(model: nn.Module, space: SearchSpace) -> None:
    """Check that this is the network that was traced, by the names and shapes of its tensors.

    Raises:
        SpaceError: it is not; names the first tensor that differs.
    """
    traced = {name: layout.shape for layout in space.tensors for name in (layout.names or (layout.name,))}
    parameters = {name: tuple(p.shape) for name, p in model.named_parameters(remove_duplicate=False)}
    buffers = {name: tuple(b.shape) for name, b in model.named_buffers(remove_duplicate=False) if name in traced}
    given = parameters | buffers
    for name in (*traced, *given):
        if traced.get(name) != given.get(name):
            raise SpaceError(
                f"{name} is {_shape(given.get(name))} in this {type(model).__name__} but {_shape(traced.get(name))} "
                f"in the network that was traced; trace this one anew"
            )


def kept_mask(axis: AxisLayout, widths: Widths, ranking: Ranking) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return (n,) True where the index of the axis survives at these widths."""
    keep = axis.group < 0
    for group in np.unique(axis.group[axis.group >= 0]):
        inside = axis.group == group
        keep[inside] = ranking[group][axis.channel[inside]] < widths[group]
    return keep


def tensor_of(model: nn.Module, name: str) -> Tensor:
    """Return the parameter or buffer of this name."""
    path, _, attribute = name.rpartition(".")
    tensor: Tensor = getattr(model.get_submodule(path), attribute)
    return tensor


def _shape(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else f"of shape {shape}"


class _KeptIndices:
    """Surviving indices of each axis, computed once per layout."""

    def __init__(self, widths: Widths, ranking: Ranking) -> None:
        self._widths = widths
        self._ranking = ranking
        self._known: dict[int, Tensor] = {}

    def of(self, axis: AxisLayout, device: torch.device) -> Tensor:
        if id(axis) not in self._known:
            indices = np.flatnonzero(kept_mask(axis, self._widths, self._ranking))
            self._known[id(axis)] = torch.from_numpy(indices).to(device)
        return self._known[id(axis)]
