"""Weights: a width is how many steps of the weights of a layer are kept; the layer keeps its shape."""

from __future__ import annotations

from typing import ClassVar, final

import numpy as np

from autoprune.space.arrays import FloatArray, IntArray
from autoprune.space.kinds.channels import Channels


@final
class Weights(Channels):
    """Densities that scale like widths: one ratio on all of them is uniform density."""

    single = True
    label: ClassVar[str] = "density"

    def ranks(self, scores: FloatArray, width: int, rows: int) -> IntArray:
        """Rank units; those at the same place of their rows enter together, the best of them first."""
        of_rows = scores.reshape(rows, -1)
        places = np.argsort(np.argsort(-of_rows, axis=1, kind="stable"), axis=1, kind="stable").ravel()
        order = np.lexsort((-scores, places))
        ranks = np.empty(len(scores), dtype=np.int64)
        step = len(scores) // width
        ranks[order] = np.maximum(np.arange(len(scores)) - (len(scores) - step * width), 0) // step
        return ranks
