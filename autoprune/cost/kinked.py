"""Costs that grow with a width until another form of the layer is cheaper: then they stay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, final

import numpy as np

from autoprune.cost.polynomial import CostFunction, WidthMatrix
from autoprune.space.groups import FloatArray


class Kink(NamedTuple):
    """What a layer costs at a width: `constant + slope * width`, at most `most`."""

    group: int
    constant: float
    slope: float
    most: float


@final
class Kinked:
    """A cost to which layers add, each with a kink.

    Args:
        rest: of everything else.
        layers: one row for each layer, at least one.
    """

    def __init__(self, rest: CostFunction, layers: Sequence[Kink]) -> None:
        self._rest = rest
        self._groups = np.array([layer.group for layer in layers])
        self._constant, self._slope, self._most = np.array([layer[1:] for layer in layers], dtype=np.float64).T

    def __call__(self, widths: WidthMatrix) -> FloatArray:
        """Return the (N,) costs at the (N, G) widths."""
        kept = np.atleast_2d(np.asarray(widths, dtype=np.float64))[:, self._groups]
        layers: FloatArray = np.minimum(self._constant + self._slope * kept, self._most).sum(axis=1)
        return self._rest(widths) + layers
