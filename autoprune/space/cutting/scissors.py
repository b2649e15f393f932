"""What is left of a tensor when some of the indices of some of its axes survive."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

_ROW = 4  # elements from which on a kernel is copied as one piece
_LARGE = 1 << 16
_COLUMNS = 1.5  # times as many elements in the rows that stay, from which on the columns come first
_WIDE = 16  # times as many elements, from which on the rows that stay are not read twice


@final
class Scissors:
    """Cuts tensors; what is cut along one axis of two lies in one place for all large ones (not for several threads).

    Args:
        large: elements from which on a part is large: memory that is there already is then faster than new memory.
    """

    def __init__(self, *, large: int = _LARGE) -> None:
        self._large = large
        self._factory: Tensor | None = None
        self._places: Tensor | None = None

    def cut(self, full: Tensor, along: Sequence[tuple[int, Tensor]]) -> Tensor:
        """A copy of what is left, given (dimension, surviving indices on any device) of one axis or more."""
        dim, indices = along[0]
        if not full.is_cpu:
            indices = indices.to(full.device)
        if len(along) == 1:
            return full.index_select(dim, indices)
        if len(along) == 2 and full.is_cpu and full.numel() < self._large:
            other, others = along[1]
            return full.index_select(dim, indices).index_select(other, others)
        if len(along) > 2:  # rare: a computed weight
            return self.cut(full.index_select(dim, indices), along[1:])
        other, others = along[1]
        if not full.is_cpu:
            others = others.to(full.device)
        shape, n = full.shape, full.numel()
        size, second = n // shape[dim] * len(indices), n // shape[other] * len(others)
        if dim == 0 and other == 1 and full.is_contiguous():
            kernel = math.prod(shape[2:])
            if kernel >= _ROW and size >= _WIDE * self._large:
                return self._kernels(full, indices, others, kernel)
            if kernel == 1 and size > _COLUMNS * second:
                dim, indices, other, others, size = other, others, dim, indices, second
        if size < self._large:
            return full.index_select(dim, indices).index_select(other, others)
        part = self._part(full, dim, len(indices), size)
        torch.index_select(full, dim, indices, out=part)
        return part.index_select(other, others)

    def _part(self, full: Tensor, dim: int, length: int, size: int) -> Tensor:
        shape = [*full.shape[:dim], length, *full.shape[dim + 1 :]]
        known = self._factory
        if known is None or known.dtype != full.dtype or known.device != full.device or len(known) < size:
            known = self._factory = full.new_empty(size)
        return known[:size].view(shape)

    def _kernels(self, full: Tensor, rows: Tensor, columns: Tensor, kernel: int) -> Tensor:
        """Rows and columns of a convolution's weight at once, each kernel as one piece."""
        n = len(rows) * len(columns)
        if self._places is None or self._places.device != full.device or len(self._places) < n:
            self._places = rows.new_empty(n)
        both = self._places[:n]
        torch.add((rows * full.shape[1])[:, None], columns, out=both.view(len(rows), len(columns)))
        return full.view(-1, kernel).index_select(0, both).view(len(rows), len(columns), *full.shape[2:])
