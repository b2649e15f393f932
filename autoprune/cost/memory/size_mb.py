"""Size of all parameters and buffers in megabytes (10^6 bytes); tied tensors count once.

That is what the weights take in memory, and, but for a header, what a file of them takes. Layers of which single
weights are left out count as stored: the weights that stay and the bits that say which ones these are, or as a dense
tensor where that is less. An exported file holds their zeros, too, and is as large as that of the full network.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import numpy as np

from autoprune.cost.memory.dtypes import MEGABYTE, bytes_of
from autoprune.cost.params import tensor_sizes
from autoprune.cost.polynomial import CostFunction, Polynomial, WidthMatrix
from autoprune.cost.steps import Tightest
from autoprune.space.groups import FloatArray, IntArray, LayerDensity, SearchSpace
from autoprune.space.sizes import AffineSize


def size_mb(space: SearchSpace, *, dtype: str | None = None) -> CostFunction:
    """Return the function (N, G) widths -> (N,) megabytes.

    Args:
        space: gives the tensors; one that was saved before format 3 lacks the buffers that are never cut.
        dtype: of all floating point tensors, for example "float16"; None: as they are.

    Raises:
        ConfigError: an unknown dtype.
    """
    sized = [(tensor, bytes_of(tensor.dtype, dtype), sizes) for tensor, sizes in tensor_sizes(space)]
    whole = Polynomial(((each, sizes) for t, each, sizes in sized if t.name not in space.sparse), len(space.groups))
    if not space.sparse:
        return _Megabytes(whole)
    return _StoredSparse(whole, [(*space.sparse[t.name], each) for t, each, _ in sized if t.name in space.sparse])


def held_mb(space: SearchSpace, *, dtype: str | None = None) -> CostFunction:
    """As `size_mb`, in memory of a network that runs: weights that are left out are held as zeros."""
    if not space.sparse:
        return size_mb(space, dtype=dtype)
    terms = ((bytes_of(t.dtype, dtype), [AffineSize(length) for length in t.shape]) for t in space.tensors)
    return _Megabytes(Polynomial(terms, len(space.groups)))


@final
class _StoredSparse:
    """Megabytes where single weights of layers are left out."""

    def __init__(self, whole: Polynomial, layers: Sequence[tuple[int, LayerDensity, int]]) -> None:
        self._whole = whole
        self._groups = np.array([group for group, _, _ in layers])
        rows = []
        for _, density, each in layers:
            mask, place = density.index_bits
            weight = each + place / 8
            dense = each * density.kept(density.steps)
            rows.append((math.ceil(mask / 8) + weight * density.fixed, weight * density.per_step, dense))
        self._constant, self._slope, self._dense = np.array(rows, dtype=np.float64).T

    def __call__(self, widths: WidthMatrix) -> FloatArray:
        """Return the (N,) megabytes at the (N, G) widths."""
        kept = np.atleast_2d(np.asarray(widths, dtype=np.float64))[:, self._groups]
        stored: FloatArray = np.minimum(self._constant + self._slope * kept, self._dense).sum(axis=1)
        return (self._whole(widths) + stored) / MEGABYTE


@final
class _Megabytes:
    """Bytes as megabytes."""

    def __init__(self, size: Polynomial) -> None:
        self._size = size

    def __call__(self, widths: WidthMatrix) -> FloatArray:
        """Return the (N,) megabytes at the (N, G) widths."""
        return self._size(widths) / MEGABYTE

    def steps(self, widths: IntArray) -> Tightest:
        """Return what follows changes of one entry at a time (`autoprune.cost.steps`)."""
        return Tightest([(self._size.steps(widths), MEGABYTE)])
