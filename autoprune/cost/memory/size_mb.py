"""Size of all parameters and buffers in megabytes (10^6 bytes); tied tensors count once.

That is what the weights take in memory, and, but for a header, what a file of them takes. Layers of which single
weights are left out count as stored: the weights that stay and the bits that say which ones these are, or as a dense
tensor where that is less. An exported file holds their zeros, too, and is as large as that of the full network.
Layers whose weights have bits count as they could be stored: the bits of all weights and a scale of 32 bits for each
output, without what fills the last byte; an exported file holds the rounded weights as the numbers that they stand for.
"""

from __future__ import annotations

import math
from typing import final

from autoprune.cost.kinked import Kink, Kinked
from autoprune.cost.memory.dtypes import MEGABYTE, bytes_of
from autoprune.cost.params import tensor_sizes
from autoprune.cost.polynomial import CostFunction, Polynomial, WidthMatrix
from autoprune.cost.scales import WithScales
from autoprune.cost.steps import Tightest, steps_of
from autoprune.errors import ConfigError
from autoprune.space.bits import SCALE_BITS
from autoprune.space.groups import FloatArray, IntArray, LayerDensity, SearchSpace
from autoprune.space.sizes import AffineSize


def size_mb(space: SearchSpace, *, dtype: str | None = None) -> CostFunction:
    """Return the function (N, G) widths -> (N,) megabytes.

    Args:
        space: gives the tensors; one that was saved before format 3 lacks the buffers that are never cut.
        dtype: of all floating point tensors, for example "float16"; None: as they are.

    Raises:
        ConfigError: an unknown dtype, or one where weights have bits.
    """
    if space.bits:
        return _Megabytes(_with_bits(space, dtype))
    sized = [(tensor, bytes_of(tensor.dtype, dtype), sizes) for tensor, sizes in tensor_sizes(space)]
    apart = space.sparse.keys() | space.factored.keys()
    whole = Polynomial(((each, sizes) for t, each, sizes in sized if t.name not in apart), len(space.groups))
    each_of = {tensor.name: each for tensor, each, _ in sized}
    kinks = [_stored(group, density, each_of[name]) for name, (group, density) in space.sparse.items()]
    kinks += [Kink(g, 0.0, each_of[n] * f.per_rank, each_of[n] * f.dense) for n, (g, f) in space.factored.items()]
    return _Megabytes(Kinked(whole, kinks) if kinks else whole)


def _with_bits(space: SearchSpace, dtype: str | None) -> WithScales:
    """Bytes where layers have bits: a polynomial in widths and bits, and the scales."""
    if dtype is not None:
        raise ConfigError(
            f"metric 'size_mb': dtype {dtype!r} would store weights otherwise than their bits say; leave it out"
        )
    terms: list[tuple[float, list[AffineSize]]] = []
    scales = []
    for tensor, sizes in tensor_sizes(space):
        if tensor.name not in space.rounded:
            terms.append((bytes_of(tensor.dtype, None), sizes))
            continue
        group, bits = space.rounded[tensor.name]
        terms.append((1 / 8, [AffineSize(0, ((group, 1),)), *sizes]))
        scales.append((group, bits.full, sizes[bits.outputs]))
    return WithScales(Polynomial(terms, len(space.groups)), scales, SCALE_BITS / 8)


def _stored(group: int, density: LayerDensity, each: int) -> Kink:
    """Bytes of a layer of which single weights are left out: those that stay, and what says which ones."""
    mask, place = density.index_bits
    weight = each + place / 8
    constant = math.ceil(mask / 8) + weight * density.fixed
    return Kink(group, constant, weight * density.per_step, each * density.kept(density.steps))


def held_mb(space: SearchSpace, *, dtype: str | None = None) -> CostFunction:
    """As `size_mb`, in memory of a network that runs: weights left out are zeros, rounded ones numbers."""
    if space.bits:
        whole = ((bytes_of(t.dtype, dtype), sizes) for t, sizes in tensor_sizes(space))
        return _Megabytes(Polynomial(whole, len(space.groups)))
    if not space.sparse:
        return size_mb(space, dtype=dtype)
    terms = ((bytes_of(t.dtype, dtype), [AffineSize(length) for length in t.shape]) for t in space.tensors)
    return _Megabytes(Polynomial(terms, len(space.groups)))


@final
class _Megabytes:
    """Bytes as megabytes."""

    def __init__(self, size: Polynomial | Kinked | WithScales) -> None:
        self._size = size

    def __call__(self, widths: WidthMatrix) -> FloatArray:
        """Return the (N,) megabytes at the (N, G) widths."""
        return self._size(widths) / MEGABYTE

    def steps(self, widths: IntArray) -> Tightest:
        """Return what follows changes of one entry at a time (`autoprune.cost.steps`)."""
        return Tightest([(steps_of(self._size, widths), MEGABYTE)])
