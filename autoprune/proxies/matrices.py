"""The matrices of a space: the weights of layers that multiply, with their rows and columns at given widths."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from autoprune.space.groups import FloatArray, SearchSpace, TensorLayout
from autoprune.space.sizes import AffineSize

Size: TypeAlias = Callable[[FloatArray], FloatArray]
"""(N, G) widths -> (N,) sizes; 0 where a layer is left out."""


def is_matrix(space: SearchSpace, tensor: TensorLayout) -> bool:
    """Whether a tensor is the weight of a convolution or a product; embeddings and positions are not."""
    if tensor.kind != "parameter" or len(tensor.shape) < 2:
        return False
    convolutions = {operation.layer for operation in space.operations if operation.kind == "conv"}
    return (
        bool(tensor.reads) or tensor.name.rpartition(".")[0] in convolutions
    )  # a depthwise one reads no other channel


def rows_of(tensor: TensorLayout, sizes: Sequence[AffineSize]) -> Size:
    """Outputs of a layer: the first axis that reads nothing."""
    return _product(_split(tensor, sizes)[0])


def columns_of(tensor: TensorLayout, sizes: Sequence[AffineSize]) -> Size:
    """What one output is computed from: all other axes, as in the unfolded form of a convolution."""
    return _product(_split(tensor, sizes)[1])


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
