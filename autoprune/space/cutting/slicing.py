"""Slicing: a candidate network is a copy of the module whose tensors keep some of their indices.

Channels are ranked once per group by importance; a candidate keeps the best ones, in their original order.

Longer than others, as it is one class, which looks up once what its networks have in common.
"""

from __future__ import annotations

from collections.abc import Collection, MutableMapping, Sequence
from typing import Any, NamedTuple, TypeAlias, final

import numpy as np
import torch
from torch import Tensor, nn

from autoprune.errors import SpaceError
from autoprune.space.copying import compute_again, computed_values
from autoprune.space.cutting.attributes import adapt_heads, adapters
from autoprune.space.cutting.cut import Cut, KeptIndices
from autoprune.space.cutting.factored import Factoring
from autoprune.space.cutting.masks import put_mask, ranks_of_weights
from autoprune.space.cutting.parts import Parts, uncollected
from autoprune.space.cutting.remembered import follow, remembered
from autoprune.space.cutting.resized import put_resolution
from autoprune.space.cutting.rounded import put_bits
from autoprune.space.cutting.scissors import Scissors
from autoprune.space.groups import AxisLayout, IntArray, SearchSpace, Widths
from autoprune.space.kinds import KINDS
from autoprune.space.resolution import RESOLUTION
from autoprune.space.tracing.blocks import Skip

Ranking: TypeAlias = tuple[IntArray, ...]
"""Per group: (slots,) rank of each channel (of its unit, inside its own set, where sets are tied); 0 is the best. Of
single weights: the width at which each comes in, counted from 0."""


def random_ranking(space: SearchSpace, rng: np.random.Generator) -> Ranking:
    """An order of the channels of every group by chance; tied sets each have their own."""
    return tuple(
        np.concatenate(
            [
                KINDS[group.kind].ranks(-rng.permutation(n).astype(np.float64), group.width, group.rows)
                for n in group.sets or (group.width,)
            ]
        )
        for group in space.groups
    )


def slice_model(model: nn.Module, space: SearchSpace, widths: Widths, ranking: Ranking) -> nn.Module:
    """Build the network of these widths; the same class as `model`, trainable, sharing nothing with it.

    Whoever builds many from one model makes a `Slicer` once.

    Args:
        model: the network that was traced, in the form of the space (`space.origin.in_form`); only read.
        space: its space.
        widths: member of the space.
        ranking: which channels to keep first.

    Raises:
        SpaceError: the widths are not in the space, or the model is not the one that was traced.
    """
    space.check(widths)
    return Slicer(model, space, ranking)(widths)


class _Place(NamedTuple):
    """Where a tensor is.

    Attributes:
        name: of the tensor.
        table: that holds it.
        key: in the table.
        axes: (dimension, distinct axis) of those that can be cut.
        trained: whether it is a parameter.
    """

    name: str
    table: MutableMapping[str, Any]
    key: str
    axes: tuple[tuple[int, int], ...]
    trained: bool


@final
class Slicer:
    """Builds networks of one model; what they have in common is looked up once.

    A network is put together from the surviving parts: what is cut is never copied. The model is only read; its weights
    and flags may change between networks, its modules and their attributes may not.

    Args:
        model: the network that was traced, in the form of the space (`space.origin.in_form`).
        space: its space.
        ranking: which channels to keep first.

    Raises:
        SpaceError: the model is not the one that was traced.
    """

    def __init__(self, model: nn.Module, space: SearchSpace, ranking: Ranking) -> None:
        check_model(model, space)
        self._model, self._space = model, space
        self._parts, self._scissors, self._adapters = Parts(model), Scissors(), adapters(model)
        self._remembered = remembered(model)
        self._computed = [(module, list(computed_values(module))) for module in model.modules()]
        self._computed = [(module, found) for module, found in self._computed if found]
        self._axes: list[tuple[IntArray, IntArray]] = []
        """Of each distinct axis: group and rank of every index."""
        self._orders: dict[int, Tensor | None] = {}
        numbers: dict[int, int] = {}
        self._vectors: list[_Place] = []
        self._tensors: list[_Place] = []
        self._places: dict[str, tuple[int, tuple[tuple[int, int], ...]]] = {}
        for layout in space.tensors:
            dims = [(dim, axis) for dim, axis in enumerate(layout.axes) if axis is not None]
            for _, axis in dims:
                if id(axis) not in numbers:
                    numbers[id(axis)] = len(self._axes)
                    self._axes.append((axis.group, _ranks(axis, ranking)))
            table, name = self._parts.table_of(layout.name)
            places = tuple((dim, numbers[id(axis)]) for dim, axis in dims)
            self._places[layout.name] = len(layout.shape), places
            same = self._vectors if len(layout.shape) == len(places) == 1 else self._tensors
            same.append(_Place(layout.name, table, name, places, layout.kind == "parameter"))
        self._sizes = [len(group) for group, _ in self._axes]
        self._ends = np.cumsum([0, *self._sizes])
        none = np.zeros(0, dtype=np.int64)
        self._groups = np.concatenate([none, *(group for group, _ in self._axes)])
        self._ranks = np.concatenate([none, *(rank for _, rank in self._axes)])
        self._indices = np.concatenate([none, *(np.arange(n) for n in self._sizes)])
        self._factoring = Factoring(model, list(space.factored.values()))
        self._sparse = [
            (group, density, ranks_of_weights(density, ranking[group])) for group, density in space.sparse.values()
        ]

    def __call__(self, widths: Widths) -> nn.Module:
        """Build the network of these widths, a member of the space.

        Raises:
            SpaceError: the widths are not in the space.
        """
        return self.cut(widths).network

    def cut(self, widths: Widths) -> Cut:
        """Build the network of these widths, a member of the space, and say which indices survived.

        Raises:
            SpaceError: the widths are not in the space.
        """
        self._space.check(widths)
        blocks = self._space.left_out(widths)
        gone = {name for block in blocks for name in block.tensors}
        made: dict[int, Any] = {id(self._model.get_submodule(block.name)): Skip(block) for block in blocks}
        kept = self._kept(widths)
        with torch.no_grad(), uncollected():
            self._cut(kept, gone, made)
            for _, found in self._computed:
                made.update({id(value): made.get(id(s), s).detach().clone() for value, s in found})
            sliced: nn.Module = self._parts.assemble(made, [block.name for block in blocks])
        for module, _ in self._computed:
            if type(made.get(id(module))) is type(module):
                compute_again(made[id(module)])
        for module, adapt in self._adapters:
            copied = made.get(id(module))
            if type(copied) is type(module):  # not in a block that is left out
                adapt(copied)
        if self._space.form == "graph":
            sliced.follow_widths(widths)  # type: ignore[operator]
        else:
            adapt_heads(self._model, sliced, self._space, widths)
            follow(self._remembered, made)
        for group, density, ranks in self._sparse:
            put_mask(sliced, density, None if widths[group] == density.steps else ranks < widths[group])
        self._factoring.put(sliced, widths)
        for group, layer in self._space.rounded.values():
            put_bits(sliced, layer, None if widths[group] == layer.full else widths[group])
        if self._space.resolution is not None:
            put_resolution(sliced, self._space.resolution, self._space.by_name(widths)[RESOLUTION])
        return Cut(sliced, self._space, widths, KeptIndices(self._places, kept, frozenset(gone)), self.order)

    def order(self, name: str, dim: int) -> Tensor | None:
        """See `Cut.order`."""
        axis = dict(self._places[name][1]).get(dim)
        if axis is None:
            return None
        if axis not in self._orders:
            group, rank = self._axes[axis]
            several = len(np.unique(group[group >= 0])) > 1
            ranks = np.where(group < 0, -1, rank)
            self._orders[axis] = None if several else torch.from_numpy(np.argsort(ranks, kind="stable"))
        return self._orders[axis]

    def _cut(self, kept: Sequence[Tensor | None], gone: Collection[str], made: dict[int, Any]) -> None:
        """Add to `made` what is left of every tensor that stays."""
        vectors, tensors = self._vectors, self._tensors
        if gone:
            vectors = [place for place in vectors if place.name not in gone]
            tensors = [place for place in tensors if place.name not in gone]
        cut = self._scissors.cut
        for _, table, key, ((_, axis),), trained in vectors:  # most tensors are
            full, indices = table[key], kept[axis]
            if indices is None:
                left = full.clone()
            else:
                left = full.index_select(0, indices if full.is_cpu else indices.to(full.device))
            if trained:
                _train(left, full)
            made[id(full)] = left
        for _, table, key, dims, trained in tensors:
            full = table[key]
            along = [(dim, indices) for dim, axis in dims if (indices := kept[axis]) is not None]
            left = cut(full, along) if along else full.clone()
            if trained:
                _train(left, full)
            made[id(full)] = left

    def _kept(self, widths: Widths) -> list[Tensor | None]:
        """Surviving indices of each distinct axis; None where all survive."""
        limits = np.array([*widths, 1])  # of group -1: always kept, with rank 0
        keep = self._ranks < limits[self._groups]  # of all axes in a row: one step each instead of one per axis
        before = np.concatenate([[0], keep.cumsum()])[self._ends]
        kept = torch.from_numpy(self._indices[keep]).split_with_sizes(np.diff(before).tolist())
        return [None if len(left) == n else left for left, n in zip(kept, self._sizes, strict=True)]


def _train(left: Tensor, full: Tensor) -> None:
    """Nobody else has it: it becomes a parameter itself, as lazy parameters of torch do."""
    left.__class__ = nn.Parameter
    if full.requires_grad:
        left.requires_grad = True


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


def _ranks(axis: AxisLayout, ranking: Ranking) -> IntArray:
    """(n,) rank of each index inside its group, 0 where it is always kept."""
    ranks: IntArray = np.zeros(len(axis.group), dtype=np.int64)
    for group in np.unique(axis.group[axis.group >= 0]):
        inside = axis.group == group
        ranks[inside] = ranking[group][axis.channel[inside]]
    return ranks
