"""What PyTorch's matrix products copy on a CPU, as `_matmul_impl` in ATen/native/LinearAlgebra.cpp (torch 2.13) does.

A batched product knows one batch dimension: an operand whose leading dimensions do not lie one after another in memory,
as the transposed heads of an attention that is written out, is copied first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import numpy as np

from autoprune.cost.memory.dtypes import bytes_of
from autoprune.cost.polynomial import CostFunction, Polynomial
from autoprune.space.groups import FloatArray, IntArray, SearchSpace
from autoprune.space.sizes import AffineSize, KernelCall


@final
@dataclass(frozen=True, slots=True)
class _Copy:
    """One operand, copied where both sizes of any of the pairs are above 1; all are functions of the widths."""

    call: int
    unit: float  # bytes of an element, times what the batch grows by
    elements: CostFunction
    pairs: tuple[tuple[float, CostFunction, CostFunction], ...]  # the number multiplies the first of the two

    def __call__(self, w: FloatArray) -> FloatArray:
        apart = np.zeros(len(w), dtype=np.bool_)
        for grows, outer, inner in self.pairs:
            apart |= (grows * outer(w) > 1.5) & (inner(w) > 1.5)
        taken: FloatArray = np.where(apart, self.unit * self.elements(w), 0.0)
        return taken


@final
class ProductCopies:
    """Bytes that the matrix products of a space allocate for copies of their operands.

    Args:
        space: with the calls of its graph.
        growth: the batch, in multiples of the traced one.
        dtype: of all floating point tensors; None: as they are.

    Attributes:
        calls: (K,) indices in `space.calls` of the products that may copy.
    """

    def __init__(self, space: SearchSpace, growth: float, dtype: str | None) -> None:
        self._copies = [c for n, call in enumerate(space.calls) for c in _copies(space, n, call, growth, dtype)]
        self.calls: IntArray = np.unique(np.array([copy.call for copy in self._copies], dtype=np.int64))
        self._columns = np.searchsorted(self.calls, [copy.call for copy in self._copies]).tolist()

    def __call__(self, w: FloatArray) -> FloatArray:
        """Return (N, K) bytes at the (N, G) widths."""
        found: FloatArray = np.zeros((len(w), len(self.calls)))
        for copy, column in zip(self._copies, self._columns, strict=True):
            found[:, column] += copy(w)
        return found


def _copies(space: SearchSpace, number: int, call: KernelCall, growth: float, dtype: str | None) -> Iterator[_Copy]:
    def size(*sizes: AffineSize) -> CostFunction:
        return Polynomial([(1, sizes)], len(space.groups))

    for operand in sorted({operand for operand, _ in call.splits}):
        read, made = space.activations[call.inputs[operand]], space.activations[call.outputs[0]]
        grows = growth if made.batched else 1.0
        unit = grows * (read.bytes if dtype is None else bytes_of(read.dtype, dtype))
        elements = size(*made.sizes[:-2], *read.sizes[-2:])  # expanded to the dimensions of the result
        dims = [dim for at, dim in call.splits if at == operand]
        pairs = ((1.0 if dim else grows, size(made.sizes[dim]), size(made.sizes[dim + 1])) for dim in dims)
        yield _Copy(number, unit, elements, tuple(pairs))
