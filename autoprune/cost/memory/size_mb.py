"""Size of all parameters and buffers in megabytes (10^6 bytes); tied tensors count once.

That is what the weights take in memory, and, but for a header, what a file of them takes. Layers of which single
weights are left out count as stored: the weights that stay and the bits that say which ones these are, or as a dense
tensor where that is less. An exported file holds their zeros, too, and is as large as that of the full network.
"""

from __future__ import annotations

import math
from typing import final

from autoprune.cost.kinked import Kink, Kinked
from autoprune.cost.memory.dtypes import MEGABYTE, bytes_of
from autoprune.cost.params import tensor_sizes
from autoprune.cost.polynomial import CostFunction, Polynomial, WidthMatrix
from autoprune.cost.steps import Tightest, steps_of
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
    apart = space.sparse.keys() | space.factored.keys()
    whole = Polynomial(((each, sizes) for t, each, sizes in sized if t.name not in apart), len(space.groups))
    each_of = {tensor.name: each for tensor, each, _ in sized}
    kinks = [_stored(group, density, each_of[name]) for name, (group, density) in space.sparse.items()]
    kinks += [Kink(g, 0.0, each_of[n] * f.per_rank, each_of[n] * f.dense) for n, (g, f) in space.factored.items()]
    return _Megabytes(Kinked(whole, kinks) if kinks else whole)


def _stored(group: int, density: LayerDensity, each: int) -> Kink:
    """Bytes of a layer of which single weights are left out: those that stay, and what says which ones."""
    mask, place = density.index_bits
    weight = each + place / 8
    constant = math.ceil(mask / 8) + weight * density.fixed
    return Kink(group, constant, weight * density.per_step, each * density.kept(density.steps))


def held_mb(space: SearchSpace, *, dtype: str | None = None) -> CostFunction:
    """As `size_mb`, in memory of a network that runs: weights that are left out are held as zeros."""
    if not space.sparse:
        return size_mb(space, dtype=dtype)
    terms = ((bytes_of(t.dtype, dtype), [AffineSize(length) for length in t.shape]) for t in space.tensors)
    return _Megabytes(Polynomial(terms, len(space.groups)))


@final
class _Megabytes:
    """Bytes as megabytes."""

    def __init__(self, size: Polynomial | Kinked) -> None:
        self._size = size

    def __call__(self, widths: WidthMatrix) -> FloatArray:
        """Return the (N,) megabytes at the (N, G) widths."""
        return self._size(widths) / MEGABYTE

    def steps(self, widths: IntArray) -> Tightest:
        """Return what follows changes of one entry at a time (`autoprune.cost.steps`)."""
        return Tightest([(steps_of(self._size, widths), MEGABYTE)])
