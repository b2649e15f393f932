"""Size of all parameters and buffers in megabytes (10^6 bytes); tied tensors count once.

That is what the weights take in memory, and, but for a header, what a file of them takes.
"""

from __future__ import annotations

from typing import final

from autoprune.cost.memory.dtypes import MEGABYTE, bytes_of
from autoprune.cost.params import tensor_sizes
from autoprune.cost.polynomial import CostFunction, Polynomial, WidthMatrix
from autoprune.cost.steps import Tightest
from autoprune.space.groups import FloatArray, IntArray, SearchSpace


def size_mb(space: SearchSpace, *, dtype: str | None = None) -> CostFunction:
    """Return the function (N, G) widths -> (N,) megabytes.

    Args:
        space: gives the tensors; one that was saved before format 3 lacks the buffers that are never cut.
        dtype: of all floating point tensors, for example "float16"; None: as they are.

    Raises:
        ConfigError: an unknown dtype.
    """
    terms = ((bytes_of(tensor.dtype, dtype), sizes) for tensor, sizes in tensor_sizes(space))
    return _Megabytes(Polynomial(terms, len(space.groups)))


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
