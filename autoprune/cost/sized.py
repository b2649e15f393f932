"""Costs that are another polynomial at each resolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np

from autoprune.cost.polynomial import CostFunction, WidthMatrix
from autoprune.space.groups import FloatArray, IntArray


@final
class AtEachSize:
    """A cost of its own for each size of images; between two of them, that of the smaller one.

    Args:
        group: whose widths are the sizes.
        sizes: ascending.
        costs: one for each.
    """

    def __init__(self, group: int, sizes: Sequence[int], costs: Sequence[CostFunction]) -> None:
        self._group, self._sizes, self._costs = group, np.array(sizes), costs

    def __call__(self, widths: WidthMatrix) -> FloatArray:
        """Return the (N,) costs at the (N, G) widths."""
        rows = np.atleast_2d(np.asarray(widths))
        places: IntArray = np.searchsorted(self._sizes, rows[:, self._group], side="right") - 1
        values: FloatArray = np.empty(len(rows))
        for place in np.unique(places):
            here = places == place
            values[here] = self._costs[max(int(place), 0)](rows[here])
        return values
