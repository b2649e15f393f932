"""All groups of a space at once: each column of a matrix of widths is handled as its kind says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeAlias, final

import numpy as np
import numpy.typing as npt

from autoprune.space.arrays import BoolArray, FloatArray, IntArray, Widths
from autoprune.space.kinds import KINDS
from autoprune.space.kinds.base import Kind, Settling

_Columns: TypeAlias = IntArray | slice


@final
class KindColumns:
    """Widths of groups of several kinds; matrices are (N, G). See `Kind` for what each method asks of a kind.

    Attributes:
        scales: (G,) True where a group scales.
    """

    def __init__(self, kinds: Sequence[str], full: Widths) -> None:
        self._full = np.array(full, dtype=np.float64)
        self._number = len(kinds)
        self.scales: BoolArray = np.array([KINDS[kind].scales for kind in kinds], dtype=np.bool_)
        self._columns = {
            KINDS[name]: np.array([i for i, kind in enumerate(kinds) if kind == name]) for name in dict.fromkeys(kinds)
        }

    def drawn(self, ratios: FloatArray, chances: FloatArray) -> FloatArray:
        """Return random proposals of random ratios, and of chances for what comes and goes."""
        return self._each(lambda kind, at: kind.drawn(self._full[at], ratios[:, at], chances[:, at]), len(ratios))

    def decided(self, proposals: FloatArray) -> FloatArray:
        """Return proposals without what stands between two states."""
        return self._each(lambda kind, at: kind.decided(proposals[:, at]), len(proposals))

    def mutated(self, parents: npt.ArrayLike, chosen: BoolArray, steps: FloatArray) -> FloatArray:
        """Return the parents, changed where that is chosen."""
        widths = np.asarray(parents, dtype=np.float64)
        return self._each(lambda kind, at: kind.mutated(widths[:, at], chosen[:, at], steps[:, at]), len(widths))

    def log_ratios(self, widths: npt.ArrayLike) -> FloatArray:
        """Return widths as points of a vector space: logarithms of their ratios to the full ones."""
        ratios = np.atleast_2d(np.asarray(widths, dtype=np.float64)) / self._full
        return self._each(lambda kind, at: kind.log_ratios(ratios[:, at]), len(ratios))

    def from_log_ratios(self, logs: FloatArray) -> FloatArray:
        """Return real widths of such points; members come back as they were."""
        points = np.atleast_2d(logs)
        return self._each(lambda kind, at: kind.from_log_ratios(points[:, at], self._full[at]), len(points))

    def moved(self, logs: FloatArray, steps: FloatArray, chosen: BoolArray) -> FloatArray:
        """Return neighbours of (1, G) or (N, G) points."""
        points = np.broadcast_to(logs, steps.shape)
        return self._each(lambda kind, at: kind.moved(points[:, at], steps[:, at], chosen[:, at]), len(steps))

    def near(self, logs: FloatArray, centre: FloatArray, distance: float) -> FloatArray:
        """Return points at most this far from the (1, G) centre, where a kind knows distances."""
        return self._each(lambda kind, at: kind.near(logs[:, at], centre[:, at], distance), len(logs))

    def settle(self, rows: Settling) -> None:
        """Set the bounds of all groups that do not scale, in place; `columns` of the rows is not looked at."""
        for kind, columns in self._columns.items():
            if not kind.scales:
                kind.settle(replace(rows, columns=columns))

    def _each(self, ask: Callable[[Kind, _Columns], FloatArray], n: int) -> FloatArray:
        if len(self._columns) == 1:
            return ask(next(iter(self._columns)), slice(None))
        made = np.empty((n, self._number))
        for kind, columns in self._columns.items():
            made[:, columns] = ask(kind, columns)
        return made
