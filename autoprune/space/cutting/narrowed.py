"""The space of a network that is cut already, so that it can be cut further: what it is now counts as whole."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from autoprune.space.cutting.slicing import Ranking
from autoprune.space.groups import AxisLayout, BoolArray, SearchSpace, TensorLayout, WidthGroup, Widths
from autoprune.space.kinds import KINDS


def narrowed(space: SearchSpace, ranking: Ranking, widths: Widths) -> tuple[SearchSpace, Ranking]:
    """Space and ranking of the network that was cut to `widths`; widths in it are counted as before.

    Blocks that are left out stay so: their groups are there, their tensors are not. Layers that have lost single
    weights have the shapes that they had, and what they have lost comes last in their ranking.

    Args:
        space: of the dense network.
        ranking: by which its channels were kept.
        widths: member of the space.

    Raises:
        SpaceError: the widths are not in the space.
    """
    space.check(widths)
    groups, kept = [], []
    for group, width, rank in zip(space.groups, widths, ranking, strict=True):
        switch = KINDS[group.kind].switches or KINDS[group.kind].single
        groups.append(group if switch else _narrower(group, width))
        kept.append(np.ones(len(rank), dtype=np.bool_) if switch else rank < width)
    axes: dict[int, tuple[AxisLayout, BoolArray]] = {}

    def axis(layout: AxisLayout) -> AxisLayout:
        if id(layout) not in axes:
            axes[id(layout)] = _axis(layout, kept)
        return axes[id(layout)][0]

    gone = {name for block in space.left_out(widths) for name in block.tensors}
    tensors = []
    for tensor in space.tensors:
        if tensor.name in gone:
            continue
        laid = tuple(None if one is None else axis(one) for one in tensor.axes)
        tensors.append(_tensor(tensor, laid))
    steps = tuple(replace(step, axes=tuple((dim, axis(one)) for dim, one in step.axes)) for step in space.steps)
    ranks = tuple(rank[keep] for rank, keep in zip(ranking, kept, strict=True))
    return replace(space, groups=tuple(groups), tensors=tuple(tensors), steps=steps), ranks


def _narrower(group: WidthGroup, width: int) -> WidthGroup:
    choices = tuple(choice for choice in group.choices if choice <= width)
    sets = tuple(size * width // group.width for size in group.sets)
    return replace(group, width=width, choices=choices, sets=sets)


def _axis(layout: AxisLayout, kept: list[BoolArray]) -> tuple[AxisLayout, BoolArray]:
    """The layout of what is left of an axis, and what that is."""
    keep: BoolArray = layout.group < 0
    channel = layout.channel.copy()
    for group in np.unique(layout.group[layout.group >= 0]):
        inside = layout.group == group
        slots = layout.channel[inside]
        keep[inside] = kept[group][slots]
        channel[inside] = (np.cumsum(kept[group]) - 1)[slots]
    return AxisLayout(layout.group[keep], channel[keep]), keep


def _tensor(tensor: TensorLayout, axes: tuple[AxisLayout | None, ...]) -> TensorLayout:
    shape = tuple(n if axis is None else len(axis.group) for n, axis in zip(tensor.shape, axes, strict=True))
    return replace(tensor, shape=shape, axes=axes)
