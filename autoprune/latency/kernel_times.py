"""Tables of kernel times: sizes are chosen where straight lines between them would be wrong, then all are timed."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Sequence
from typing import TypeAlias, final

import numpy as np

from autoprune.cost.latency.device_profile import Conditions, Grid, KernelTable
from autoprune.cost.latency.kernels import DeviceKernel
from autoprune.latency.backends.base import Backend, Runner
from autoprune.latency.clock import clock

Sizes: TypeAlias = tuple[int, ...]
TimeAt: TypeAlias = Callable[[Sizes], float]
"""(sizes of the axes) -> milliseconds; raises `NotAloneError`."""

_START, _MOST = 5, 12
"""Sizes along each axis, at first and at most."""

_TOLERANCE = 0.03
_SHARES = 8
"""Sizes of a kernel with more than two axes: all at the same share of their full ones."""

_SAMPLES, _LEAST_MS = 7, 0.15
"""Samples of a kernel, and how long one lasts at least: short kernels run several times in a row."""


_FASTER = 0.02


class NotAloneError(Exception):
    """A kernel has settings that follow the widths in a way of their own, or the backend fuses it."""


@final
class KernelTimer:
    """Times one kernel at a grid of sizes, again and again, and keeps the best time of each size.

    A machine is slower at some times than at others; passes over all kernels, one after the other, meet it in several
    states.

    Args:
        backend: runs the kernel.
        kernel: what runs.
        full: the largest size of each of its axes (of all its axes, also where its table has fewer).
        conditions: under which it runs.
        idle: milliseconds of running nothing, which are taken off.
    """

    def __init__(
        self, backend: Backend, kernel: DeviceKernel, full: Sizes, conditions: Conditions, idle: float
    ) -> None:
        self._backend, self._kernel, self._conditions, self._idle = backend, kernel, conditions, idle
        self._diagonal = kernel.table_axes != kernel.axes
        self._alignment = backend.alignment if kernel.axes and not self._diagonal else 1
        self._points: list[list[Sizes]] = []
        self._axes: list[list[list[int]]] = []
        try:
            if self._diagonal:
                shares = np.linspace(1 / _SHARES, 1, _SHARES)
                self._points = [[tuple(max(1, round(share * length)) for length in full) for share in shares]]
                self._time_at(self._points[0][-1])
            else:
                classes = [_classes(length, self._alignment) for length in full]
                self._axes = [_chosen(allowed, self._time_at) for allowed in itertools.product(*classes)]
                self._points = [list(itertools.product(*axes)) for axes in self._axes]
        except NotAloneError:
            self._points = []
        self._ms = [np.full(len(points), np.inf) for points in self._points]

    def time(self) -> tuple[int, int]:
        """Time every size once more; return how many took 2 % less than ever before, and how many there are."""
        try:
            times = [np.array([self._time_at(sizes) for sizes in points]) for points in self._points]
        except NotAloneError:  # some sizes do not run
            self._points, self._ms = [], []
            return 0, 0
        faster = sum(int((ms < (1 - _FASTER) * best).sum()) for ms, best in zip(times, self._ms, strict=True))
        self._ms = [np.minimum(ms, best) for ms, best in zip(times, self._ms, strict=True)]
        return faster, sum(map(len, self._ms))

    def table(self) -> KernelTable | None:
        """The best times so far; None where the kernel cannot run alone."""
        if not self._points:
            return None
        if self._diagonal:
            columns = np.array(self._points[0], dtype=np.float64).T
            axis, first = np.unique(self._kernel.elements(list(columns)), return_index=True)
            return KernelTable(1, (Grid((axis,), self._ms[0][first]),))
        grids = []
        for axes, ms in zip(self._axes, self._ms, strict=True):
            arrays = tuple(np.array(axis, dtype=np.float64) for axis in axes)
            grids.append(Grid(arrays, ms.reshape([len(axis) for axis in axes])))
        return KernelTable(self._alignment, tuple(grids))

    def _time_at(self, sizes: Sizes) -> float:
        shapes = self._kernel.shapes(sizes, batch=max(1, self._conditions.batch))
        run = self._backend.kernel(self._kernel, shapes, self._conditions)
        if run is None:
            raise NotAloneError(self._kernel.name)
        ms = time_kernel(run, self._conditions)
        return max(ms - self._idle, 0.1 * ms)


def time_kernel(run: Runner, conditions: Conditions) -> float:
    """Milliseconds of one run: the fastest sample, since what disturbs a kernel only ever slows it down."""
    run()
    once = max(clock(run, 1, conditions), 1e-4)
    times = max(1, int(np.ceil(_LEAST_MS / once)))
    return min(clock(run, times, conditions) for _ in range(_SAMPLES))


def _classes(length: int, alignment: int) -> list[list[int]]:
    """Sizes up to the full one, multiples of the alignment and the others apart."""
    sizes = list(range(1, length + 1))
    if alignment == 1:
        return [sizes]
    multiples = [n for n in sizes if n % alignment == 0]
    others = [n for n in sizes if n % alignment]
    return [multiples or others, others or multiples]


def _chosen(allowed: Sequence[list[int]], time_at: TimeAt) -> list[list[int]]:
    """The sizes that each axis needs while the others are at their largest."""
    top = [sizes[-1] for sizes in allowed]

    def along(number: int) -> Callable[[int], float]:
        return lambda size: time_at((*top[:number], size, *top[number + 1 :]))

    return [needed_sizes(sizes, along(number)) for number, sizes in enumerate(allowed)]


def needed_sizes(allowed: Sequence[int], time_at: Callable[[int], float]) -> list[int]:
    """Choose sizes so that straight lines between them are right within a few percent, also across jumps.

    Starts with a few at equal distance and halves the interval whose middle is predicted worst, again and again.

    Args:
        allowed: ascending sizes to choose from.
        time_at: size -> milliseconds.
    """
    chosen = sorted({int(i) for i in np.linspace(0, len(allowed) - 1, _START).round()})
    times = {i: time_at(allowed[i]) for i in chosen}
    scale = _TOLERANCE * max(times.values()) / 3
    worst: list[tuple[float, int, int, int]] = []

    def examine(low: int, high: int) -> None:
        if high - low < 2:
            return
        middle = (low + high) // 2
        times[middle] = time_at(allowed[middle])
        part = (allowed[middle] - allowed[low]) / (allowed[high] - allowed[low])
        straight = times[low] + part * (times[high] - times[low])
        error = abs(times[middle] - straight) / max(scale, _TOLERANCE * times[middle], 1e-9)
        heapq.heappush(worst, (-error, low, middle, high))

    for low, high in itertools.pairwise(chosen):
        examine(low, high)
    while worst and len(chosen) < _MOST:
        error, low, middle, high = heapq.heappop(worst)
        if -error < 1.0:
            break
        chosen.append(middle)
        examine(low, middle)
        examine(middle, high)
    return [allowed[i] for i in sorted(chosen)]
