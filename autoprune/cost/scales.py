"""Costs of layers that have a scale for each output where their weights are stored in few bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np

from autoprune.cost.polynomial import CostFunction, WidthMatrix
from autoprune.space.groups import FloatArray
from autoprune.space.sizes import AffineSize


@final
class WithScales:
    """A cost to which layers add their scales, while they are below their full width.

    Args:
        rest: of everything else.
        layers: (group of bits, its full width, number of outputs), at least one.
        each: what a scale costs.
    """

    def __init__(self, rest: CostFunction, layers: Sequence[tuple[int, int, AffineSize]], each: float) -> None:
        self._rest, self._each = rest, each
        self._groups = np.array([group for group, _, _ in layers])
        self._full = np.array([full for _, full, _ in layers])
        self._outputs = [outputs for _, _, outputs in layers]

    def __call__(self, widths: WidthMatrix) -> FloatArray:
        """Return the (N,) costs at the (N, G) widths."""
        rows = np.atleast_2d(np.asarray(widths, dtype=np.float64))
        few = rows[:, self._groups] < self._full
        number = np.stack(
            [
                outputs.constant + sum((m * rows[:, group] for group, m in outputs.terms), np.zeros(len(rows)))
                for outputs in self._outputs
            ],
            axis=1,
        )
        scales: FloatArray = self._each * (few * number).sum(axis=1)
        return self._rest(widths) + scales
