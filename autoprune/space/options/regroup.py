"""Width groups taken out or put together: every size and layout of a space follows through one mapping."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple, TypeAlias, final

import numpy as np

from autoprune.space.groups import AxisLayout, SearchSpace, StepLayout, WidthGroup
from autoprune.space.sizes import AffineSize, KernelCall


class Place(NamedTuple):
    """Where the channels of an old group go: into this new group, from this slot on."""

    group: int
    slot: int


Places: TypeAlias = Sequence[Place | None]
"""Per old group, its place; None where its channels are always kept."""


def regroup(space: SearchSpace, groups: tuple[WidthGroup, ...], places: Places) -> SearchSpace:
    """Return the space over other groups: the same tensors, products, values and calls, each channel in its new place.

    Every metric costs the same as in the old space at the widths that are meant.

    Args:
        space: gives the old groups.
        groups: the new ones; a new width divides the widths of all groups that go into it.
        places: one for every old group.
    """
    axis, sizes = _AxisMap(places), _SizeMap(space.groups, groups, places)
    return replace(
        space,
        groups=groups,
        operations=tuple(replace(op, sizes=sizes(op.sizes)) for op in space.operations),
        tensors=tuple(replace(t, axes=tuple(axis(a) for a in t.axes)) for t in space.tensors),
        steps=tuple(step for old in space.steps if (step := _step(old, axis)).axes),
        activations=tuple(replace(value, sizes=sizes(value.sizes)) for value in space.activations),
        calls=tuple(_call(call, sizes, places) for call in space.calls),
    )


@final
class _SizeMap:
    """Maps sizes; a group whose channels are always kept counts with its full width."""

    def __init__(self, old: Sequence[WidthGroup], new: Sequence[WidthGroup], places: Places) -> None:
        self._old, self._new, self._places = old, new, places
        self._known: dict[AffineSize, AffineSize] = {}

    def __call__(self, given: Sequence[AffineSize]) -> tuple[AffineSize, ...]:
        return tuple(self._size(size) for size in given)

    def _size(self, given: AffineSize) -> AffineSize:
        if given not in self._known:
            constant = given.constant
            terms: dict[int, int] = defaultdict(int)
            for old, multiplicity in given.terms:
                full, place = multiplicity * self._old[old].width, self._places[old]
                if place is None:
                    constant += full
                else:
                    terms[place.group] += full // self._new[place.group].width
            self._known[given] = AffineSize(constant, tuple(sorted(terms.items())))
        return self._known[given]


def _call(old: KernelCall, sizes: _SizeMap, places: Places) -> KernelCall:
    place = places[old.switch] if old.switch >= 0 else None  # a switch that is no longer offered is always on
    switch = -1 if place is None else place.group
    return replace(old, weights=tuple(sizes(weight) for weight in old.weights), switch=switch)


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
