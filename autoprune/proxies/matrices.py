"""The matrices of a space: the weights of layers that multiply, with their rows and columns at given widths."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import numpy as np

from autoprune.cost.params import tensor_sizes
from autoprune.space.groups import FloatArray, SearchSpace, TensorLayout
from autoprune.space.sizes import AffineSize

Size: TypeAlias = Callable[[FloatArray], FloatArray]
"""(N, G) widths -> (N,) sizes; 0 where a layer is left out."""


def matrices(space: SearchSpace) -> Iterator[tuple[Size, Size]]:
    """Rows and columns of the weights of convolutions and products; embeddings and positions are not among them.

    Rows are the outputs of a layer, the first axis that reads nothing; columns what one output is computed from, all
    other axes, as in the unfolded form of a convolution.
    """
    convolutions = {operation.layer for operation in space.operations if operation.kind == "conv"}
    for tensor, sizes in tensor_sizes(space):
        depthwise = tensor.name.rpartition(".")[0] in convolutions  # reads no channel but its own
        if tensor.kind == "parameter" and len(tensor.shape) > 1 and (tensor.reads or depthwise):
            rows, columns = _split(tensor, sizes)
            yield _product(rows), _product(columns)


def _split(tensor: TensorLayout, sizes: Sequence[AffineSize]) -> tuple[list[AffineSize], list[AffineSize]]:
    writes = next((axis for axis in range(len(tensor.shape)) if axis not in tensor.reads), 0)
    switch = list(sizes[len(tensor.shape) :])  # of the block that the layer lies in, with either
    others = [size for axis, size in enumerate(sizes[: len(tensor.shape)]) if axis != writes]
    return [sizes[writes], *switch], [*others, *switch]


def _product(sizes: Sequence[AffineSize]) -> Size:
    fixed = 1.0
    varying = []
    for size in sizes:
        if size.terms:
            varying.append((float(size.constant), [g for g, _ in size.terms], [float(k) for _, k in size.terms]))
        else:
            fixed *= size.constant

    def value(widths: FloatArray) -> FloatArray:
        found: FloatArray = np.full(len(widths), fixed)
        for constant, groups, counts in varying:
            found = found * (constant + widths[:, groups] @ np.array(counts))
        return found

    return value
