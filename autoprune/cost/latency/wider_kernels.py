"""Kernels that a profile does not hold under their own name, looked up in the table of a kernel that covers them.

Tied groups, excluded layers and groups that stay whole leave a call fewer sizes that vary: `[1,a] x [a,a]` or
`[1,16] x [a,16]` instead of `[1,a] x [b,a]`. It is the same kernel at sizes of the other's table, so that one profile
of a model serves all its spaces.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from autoprune.cost.latency.device_profile import KernelTable
from autoprune.cost.latency.kernels import DeviceKernel, Dimension, TimedCall, distinct_kernels
from autoprune.errors import ConfigError
from autoprune.space.groups import SearchSpace
from autoprune.space.sizes import AffineSize

Tables: TypeAlias = Mapping[str, KernelTable | None]

_OPERAND = re.compile(r"([bfw]:\w+)\[([^\]]*)\];?")
_SIZE = re.compile(r"(\d*)([a-z]?)")


def covered_calls(tables: Tables, space: SearchSpace, calls: Sequence[TimedCall]) -> tuple[TimedCall, ...]:
    """The calls, those that the tables lack as calls of a kernel that covers them; unchanged where there is none."""
    known: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name in sorted(tables, key=lambda name: (tables[name] is None, name)):
        known[_outline(name)].append(name)
    instead = {}
    for name, (kernel, own) in distinct_kernels(calls).items():
        if name in tables and reaches(tables[name], full_sizes(kernel, own, space)):
            continue
        for other in known[_outline(name)]:
            covered = [_as_other(call, other) for call in own]
            fitting = [call for call in covered if call is not None]  # all or none: they run one kernel
            if fitting and reaches(tables[other], full_sizes(fitting[0].kernel, fitting, space)):
                instead.update({id(old): new for old, new in zip(own, fitting, strict=True)})
                break
    return tuple(instead.get(id(call), call) for call in calls)


def reaches(table: KernelTable | None, full: tuple[float, ...]) -> bool:
    """True where the table goes up to these sizes; a kernel that cannot be timed has none.

    Raises:
        ConfigError: the table is one of a kernel with another number of sizes.
    """
    if table is not None and len(full) != len(table.largest):
        raise ConfigError(
            f"the device profile is damaged: a kernel of {len(full)} sizes has a table of {len(table.largest)}; make "
            f"it anew with: autoprune latency profile MODEL --out FILE"
        )
    return table is None or all(a <= b for a, b in zip(full, table.largest, strict=True))


def full_sizes(kernel: DeviceKernel, calls: Sequence[TimedCall], space: SearchSpace) -> tuple[float, ...]:
    """The largest size of each axis of the kernel's table over these calls."""
    rows = np.array([[size(space.full) for size in call.sizes] for call in calls], dtype=np.float64)
    if kernel.table_axes != kernel.axes:
        return (float(kernel.elements(list(rows.T)).max()),)
    return tuple(float(x) for x in rows.reshape(len(calls), -1).max(axis=0)) if kernel.axes else ()


def _outline(name: str) -> tuple[str, ...]:
    """What two kernels of which one covers the other have in common: all but the sizes."""
    operator, _, rest = name.partition("(")
    operands = []
    while match := _OPERAND.match(rest):
        operands.append(f"{match[1]}[{len(match[2].split(',')) if match[2] else 0}]")
        rest = rest[match.end() :]
    return operator, *operands, rest


def _dimensions(name: str) -> list[tuple[Dimension, ...]]:
    """The dimensions of each operand, read from the name of a kernel; none where it has too many axes for letters."""
    found, rest = [], name.partition("(")[2]
    while match := _OPERAND.match(rest):
        sizes = [_SIZE.fullmatch(size) for size in match[2].split(",")] if match[2] else []
        if not all(sizes):
            return []
        found.append(
            tuple((ord(s[2]) - ord("a"), int(s[1] or 1)) if s[2] else int(s[1]) for s in sizes if s is not None)
        )
        rest = rest[match.end() :]
    return found


def _as_other(call: TimedCall, name: str) -> TimedCall | None:
    """The call as one of the kernel of this name; None where that does not cover it."""
    wanted, given = _dimensions(name), [operand.dimensions for operand in call.kernel.operands]
    if [len(shape) for shape in wanted] != [len(shape) for shape in given]:
        return None
    axes: dict[int, AffineSize] = {}
    for one, other in zip(sum(wanted, ()), sum(given, ()), strict=True):
        if isinstance(one, int):
            if one != other:
                return None
            continue
        axis, factor = one
        size = _part(call, other, factor)
        if size is None or axes.setdefault(axis, size) != size:
            return None
    operands = tuple(replace(o, dimensions=shape) for o, shape in zip(call.kernel.operands, wanted, strict=True))
    kernel = replace(call.kernel, operands=operands, axes=len(axes))
    return replace(call, kernel=kernel, sizes=tuple(axes[axis] for axis in sorted(axes)))


def _part(call: TimedCall, dimension: Dimension, factor: int) -> AffineSize | None:
    """A size of the call divided by a factor of the other kernel; None where that gives no whole number."""
    if isinstance(dimension, int):
        return None if dimension % factor else AffineSize(dimension // factor)
    size, own = call.sizes[dimension[0]], dimension[1]
    if own % factor:
        return None
    times = own // factor
    return AffineSize(times * size.constant, tuple((group, times * m) for group, m in size.terms))
