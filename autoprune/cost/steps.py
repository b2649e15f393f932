"""Costs of many width vectors that change one entry at a time, without computing each of them anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, final

import numpy as np

from autoprune.cost.polynomial import CostFunction
from autoprune.space.groups import BoolArray, FloatArray, IntArray


class Steps(Protocol):
    """The costs of N width vectors, of which each step changes one entry."""

    def changed(self, columns: IntArray, values: IntArray) -> FloatArray:
        """Return the (N,) costs with the (N,) values in these (N,) columns, one of each row."""

    def keep(self, rows: BoolArray) -> None:
        """Make the last change so in some of the rows."""


def steps_of(cost: CostFunction, widths: IntArray) -> Steps:
    """Return the steps from (N, G) widths on: the cost's own (`cost.steps`) where it has some."""
    own = getattr(cost, "steps", None)
    steps: Steps = Recomputed(cost, widths) if own is None else own(widths)
    return steps


@final
class Recomputed:
    """Steps of a cost function that knows no shorter way."""

    def __init__(self, cost: CostFunction, widths: IntArray) -> None:
        self._cost, self._kept = cost, widths.copy()
        self._rows = np.arange(len(widths))

    def changed(self, columns: IntArray, values: IntArray) -> FloatArray:
        """See `Steps`."""
        self._trial = self._kept.copy()
        self._trial[self._rows, columns] = values
        return self._cost(self._trial)

    def keep(self, rows: BoolArray) -> None:
        """See `Steps`."""
        self._kept[rows] = self._trial[rows]


@final
class Tightest:
    """The largest of several costs, each divided by its limit."""

    def __init__(self, parts: Sequence[tuple[Steps, float]]) -> None:
        self._parts = parts

    def changed(self, columns: IntArray, values: IntArray) -> FloatArray:
        """See `Steps`."""
        shares = [steps.changed(columns, values) / limit for steps, limit in self._parts]
        tightest: FloatArray = np.max(shares, axis=0)
        return tightest

    def keep(self, rows: BoolArray) -> None:
        """See `Steps`."""
        for steps, _ in self._parts:
            steps.keep(rows)
