"""Ties: several width groups that keep one ratio in common become one group, one variable of the search.

A tied group counts *units*, as many as the greatest common divisor of the tied widths; a unit is one channel or more of
every tied set. Its layouts count *slots*: the channels of all sets, one set after the other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatch
from itertools import groupby
from typing import Any, TypeAlias

import numpy as np

from autoprune.config.space import SpaceOptions
from autoprune.errors import SpaceError
from autoprune.space.groups import FloatArray, IntArray, SearchSpace, WidthGroup, Widths
from autoprune.space.kinds import KINDS
from autoprune.space.options.regroup import Place, regroup

Sets: TypeAlias = Sequence[Sequence[int]]
"""Indices of groups, those of one set to be tied."""


def tie(space: SearchSpace, sets: Sets) -> SearchSpace:
    """Return the space in which the groups of each set are one, at the place of the first.

    Its choices are the ratios that every tied group allows.

    Args:
        space: the space; unchanged.
        sets: disjoint sets of indices into `space.groups`.

    Raises:
        SpaceError: the widths of a set have no common divisor above 1.
    """
    if not any(len(indices) > 1 for indices in sets):
        return space
    groups, places = [], dict[int, Place]()
    for new, indices in enumerate(partition(len(space.groups), sets)):
        slot = 0
        for old in indices:
            places[old] = Place(new, slot)
            slot += space.groups[old].slots
        groups.append(_merged([space.groups[old] for old in indices]))
    return regroup(space, tuple(groups), [places[old] for old in range(len(space.groups))])


def partition(n: int, sets: Sets) -> list[tuple[int, ...]]:
    """All n indices, those of a set together, in order of the first of each."""
    owner = {index: tuple(sorted(set(indices))) for indices in sets for index in indices}
    return list(dict.fromkeys(owner.get(index, (index,)) for index in range(n)))


def tied_sets(space: SearchSpace, options: SpaceOptions) -> list[tuple[int, ...]]:
    """Disjoint sets of groups that the options tie, by `per` and by name; sets that overlap are one."""
    n = len(space.groups)
    found = [indices for indices in _sets_per(space.groups, options.per) if len(indices) > 1]
    found += [tuple(i for p in patterns for i in matching(space, p)) for patterns in options.tie]
    owner = list(range(n))
    for indices in found:
        joined = {owner[index] for index in indices}
        owner = [min(joined) if o in joined else o for o in owner]
    sets = [tuple(i for i in range(n) if owner[i] == root) for root in sorted(set(owner))]
    return [indices for indices in sets if len(indices) > 1]


def matching(space: SearchSpace, pattern: str) -> list[int]:
    """Indices of the groups with a layer whose name matches the shell-style pattern."""
    return [i for i, group in enumerate(space.groups) if any(fnmatch(layer, pattern) for layer in group.members)]


def set_ranges(group: WidthGroup) -> Iterator[tuple[int, int]]:
    """(first slot, number of channels) of each tied set; one set where nothing is tied."""
    start = 0
    for size in group.sets or (group.width,):
        yield start, size
        start += size


def rank_slots(group: WidthGroup, scores: FloatArray) -> IntArray:
    """Rank the channels of a group, each tied set on its own scores.

    Args:
        group: the group.
        scores: (slots,) importance; ties keep their order.

    Returns:
        (slots,) rank of each channel's unit in its own set, 0 for the most important.
    """
    ranks = KINDS[group.kind].ranks
    sets = set_ranges(group)
    return np.concatenate([ranks(scores[start : start + size], group.width, group.rows) for start, size in sets])


def _merged(groups: Sequence[WidthGroup]) -> WidthGroup:
    first = groups[0]
    if len(groups) == 1:
        return first
    width = first.width
    for group in groups[1:]:
        common = math.gcd(width, group.width)
        if common == 1:
            raise SpaceError(
                f"{first.name!r} ({first.width} wide) and {group.name!r} ({group.width} wide) cannot be tied: only the "
                f"full width is a whole number of channels in all of {', '.join(g.name for g in groups[:6])}"
                f"{', …' if len(groups) > 6 else ''}. Exclude one of them, or tie fewer (options tie and per)"
            )
        width = common
    return replace(
        first,
        width=width,
        choices=_common_choices(width, groups),
        members=tuple(dict.fromkeys(layer for group in groups for layer in group.members)),
        residual=any(group.residual for group in groups),
        kind=next((group.kind for group in groups if KINDS[group.kind].rule), first.kind),  # the coarser units
        sets=tuple(size for group in groups for _, size in set_ranges(group)),
    )


def _common_choices(width: int, groups: Sequence[WidthGroup]) -> Widths:
    allowed = [{choice * width for choice in group.choices} for group in groups]
    return tuple(
        units
        for units in range(1, width + 1)
        if all(units * group.width in choices for group, choices in zip(groups, allowed, strict=True))
    )


def _sets_per(groups: Sequence[WidthGroup], per: str) -> list[tuple[int, ...]]:
    """Groups with one ratio in common; residual and inner ones stay apart, and what cannot be cut stays out."""
    if per == "layer":
        return []
    stages, layers = _stages(groups), {layer for group in groups for layer in group.members}

    def key(index: int) -> tuple[Any, ...]:
        group = groups[index]
        if per == "model":
            return (group.residual,)
        if per == "stage":
            return (group.residual, stages[index])
        if group.residual and len({_block(layer, layers) for layer in group.members}) > 1:
            return (True, "stage", stages[index])
        return (group.residual, _block((group.members or (group.name,))[0], layers) or index)

    sets: dict[tuple[Any, ...], list[int]] = {}
    for index, group in enumerate(groups):
        if group.width > 1:
            sets.setdefault(key(index), []).append(index)
    return [tuple(indices) for indices in sets.values()]


def _block(layer: str, layers: Iterable[str]) -> str | None:
    """The path up to the last number below which at least two layers lie: `layer1.0` of `layer1.0.conv1`."""
    parts = layer.split(".")
    for end in range(len(parts) - 1, 0, -1):
        prefix = ".".join(parts[:end])
        if parts[end - 1].isdigit() and sum(other.startswith(f"{prefix}.") for other in layers) > 1:
            return prefix
    return None


def _stages(groups: Sequence[WidthGroup]) -> list[tuple[int, int]]:
    """(number of the run of equal positions, positions) of each group.

    A single group at one position between two of a stage (the narrow layer of squeeze and excitation) does not end the
    stage, but is apart from its other groups.
    """
    positions = [group.positions for group in groups]
    main = list(positions)
    for index in range(1, len(groups) - 1):
        before, here, after = positions[index - 1 : index + 2]
        if before == after > here == min(positions):
            main[index] = before
    runs = [number for number, (_, run) in enumerate(groupby(main)) for _ in run]
    return list(zip(runs, positions, strict=True))
