"""Which widths a group may take: minimum, granularity, explicit ratios; and groups taken out by name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatch

import numpy as np

from autoprune.config import SpaceOptions
from autoprune.errors import SpaceError, suggest
from autoprune.space.groups import (
    AffineSize,
    AxisLayout,
    FrozenPart,
    SearchSpace,
    Widths,
)


def width_choices(name: str, width: int, options: SpaceOptions) -> Widths:
    """Allowed widths of one group, ascending; always ends with the full width.

    A full width that is no multiple of the divisor stays allowed; a group narrower than the divisor has no other.
    """
    least = min(width, max(options.min_channels, math.ceil(width * options.min_ratio - 1e-9), 1))
    if options.ratios is not None:
        candidates = {_to_multiple(width * ratio, options.divisor, width) for ratio in options.ratios}
    else:
        candidates = set(range(options.divisor, width, options.divisor))
    return (*sorted(c for c in candidates if least <= c < width), width)


def exclude(space: SearchSpace, patterns: tuple[str, ...]) -> SearchSpace:
    """Freeze every group with a layer whose name matches one of the shell-style patterns.

    Raises:
        SpaceError: a pattern matches no layer of any group.
    """
    reasons: dict[int, str] = {}
    layers = sorted({layer for group in space.groups for layer in group.members})
    for pattern in patterns:
        matched = [i for i, g in enumerate(space.groups) if any(fnmatch(layer, pattern) for layer in g.members)]
        if not matched:
            raise SpaceError(
                f"exclude: {pattern!r} matches no layer that could be cut.{suggest(pattern, layers)} "
                f"`autoprune space MODEL` lists the layers of every group"
            )
        reasons.update(dict.fromkeys(matched, f"excluded by {pattern!r}"))
    return freeze_groups(space, reasons)


def freeze_groups(space: SearchSpace, reasons: Mapping[int, str]) -> SearchSpace:
    """Return the space without these groups (index -> reason): their channels stay, and are listed as frozen."""
    if not reasons:
        return space
    left = [index for index in range(len(space.groups)) if index not in reasons]
    new_index = {old: new for new, old in enumerate(left)}

    def size(given: AffineSize) -> AffineSize:
        kept = tuple((new_index[g], m) for g, m in given.terms if g in new_index)
        full = sum(m * space.groups[g].width for g, m in given.terms if g not in new_index)
        return AffineSize(given.constant + full, kept)

    lookup = np.array([new_index.get(old, -1) for old in range(len(space.groups))] + [-1])
    interned: dict[int, AxisLayout | None] = {}

    def axis(given: AxisLayout | None) -> AxisLayout | None:
        if given is None or id(given) in interned:
            return interned.get(id(given))
        group = lookup[given.group]
        layout = AxisLayout(group, np.where(group < 0, 0, given.channel)) if (group >= 0).any() else None
        return interned.setdefault(id(given), layout)

    frozen = [
        FrozenPart(layer, space.groups[index].width, reason)
        for index, reason in reasons.items()
        for layer in space.groups[index].members
    ]
    return replace(
        space,
        groups=tuple(space.groups[index] for index in left),
        frozen=(*space.frozen, *frozen),
        operations=tuple(replace(op, sizes=tuple(map(size, op.sizes))) for op in space.operations),
        tensors=tuple(replace(t, axes=tuple(map(axis, t.axes))) for t in space.tensors),
    )


def _to_multiple(value: float, divisor: int, full: int) -> int:
    nearest = max(divisor, round(value / divisor) * divisor)
    return min(full, nearest)
