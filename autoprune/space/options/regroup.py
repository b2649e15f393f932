"""Width groups taken out or put together: every size and layout of a space follows through one mapping."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple, TypeAlias

import numpy as np

from autoprune.space.groups import AxisLayout, SearchSpace, StepLayout, WidthGroup
from autoprune.space.sizes import AffineSize


class Place(NamedTuple):
    """Where the channels of an old group go: into this new group, from this slot on."""

    group: int
    slot: int


Places: TypeAlias = Sequence[Place | None]
"""Per old group, its place; None where its channels are always kept."""


def regroup(space: SearchSpace, groups: tuple[WidthGroup, ...], places: Places) -> SearchSpace:
    """Return the space over other groups: the same tensors and products, each channel in its new place.

    Args:
        space: gives the old groups.
        groups: the new ones; a new width divides the widths of all groups that go into it.
        places: one for every old group.
    """
    axis = _AxisMap(places)
    return replace(
        space,
        groups=groups,
        operations=tuple(
            replace(op, sizes=tuple(_size(size, space, groups, places) for size in op.sizes)) for op in space.operations
        ),
        tensors=tuple(replace(t, axes=tuple(axis(a) for a in t.axes)) for t in space.tensors),
        steps=tuple(step for old in space.steps if (step := _step(old, axis)).axes),
    )


def _size(given: AffineSize, space: SearchSpace, groups: Sequence[WidthGroup], places: Places) -> AffineSize:
    constant = given.constant
    terms: dict[int, int] = defaultdict(int)
    for old, multiplicity in given.terms:
        full, place = multiplicity * space.groups[old].width, places[old]
        if place is None:
            constant += full
        else:
            terms[place.group] += full // groups[place.group].width
    return AffineSize(constant, tuple(sorted(terms.items())))


def _step(old: StepLayout, axis: _AxisMap) -> StepLayout:
    axes = ((dim, axis(layout)) for dim, layout in old.axes)
    return StepLayout(old.name, tuple((dim, layout) for dim, layout in axes if layout is not None))


class _AxisMap:
    """Maps layouts; one that several tensors share is still shared afterwards."""

    def __init__(self, places: Places) -> None:
        self._group = np.array([-1 if p is None else p.group for p in places] + [-1])  # index -1: always kept
        self._slot = np.array([0 if p is None else p.slot for p in places] + [0])
        self._known: dict[int, AxisLayout | None] = {}

    def __call__(self, given: AxisLayout | None) -> AxisLayout | None:
        if given is None:
            return None
        if id(given) not in self._known:
            group = self._group[given.group]
            slot = np.where(group < 0, 0, given.channel + self._slot[given.group])
            self._known[id(given)] = AxisLayout(group, slot) if (group >= 0).any() else None
        return self._known[id(given)]
