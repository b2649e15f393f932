"""What PyTorch's convolutions on a CPU allocate beside their results, as seen on torch 2.13 with AVX-512.

oneDNN works on copies of input, weight and output whose channels are padded to blocks of 16 (8 on older CPUs); where
PyTorch does not choose oneDNN (`ConvParams::use_mkldnn` in ATen/native/Convolution.cpp), the patches under the kernel
are laid out as one matrix (im2col).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from autoprune.space.groups import FloatArray, IntArray, SearchSpace
from autoprune.space.sizes import AffineSize, KernelCall

_OPERATORS = frozenset(
    ["conv1d", "conv2d", "conv3d", "convolution", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"]
)
_BLOCK = 16
_SMALL_INPUT = 20_480  # elements; a single image below this is not worth oneDNN to PyTorch


@final
@dataclass(frozen=True, slots=True)
class _Convolution:
    """One convolution; counts are per input of the batch."""

    call: int
    channels_in: AffineSize
    channels_out: AffineSize
    positions_in: int
    counted_in: int  # positions that PyTorch counts to tell a small input: without the last dimension of three
    positions_out: int
    taps: int
    kind: str  # "dense", "depthwise", "grouped" or "transposed"
    pointwise: bool  # 1 x 1, neither strided nor dilated
    flat: bool  # the same, but of three dimensions only the last two count
    wide: bool  # a kernel above 3 in both of its last dimensions


@final
class ConvolutionCopies:
    """Bytes that each convolution of a space allocates for itself.

    Args:
        space: with the calls of its graph.
        batch: how many inputs at once.
        threads: of PyTorch; with more than one, oneDNN takes more of the 1 x 1 convolutions.
        element: bytes of an element.

    Attributes:
        calls: (K,) indices of the convolutions in `space.calls`.
    """

    def __init__(self, space: SearchSpace, batch: int, threads: int, element: int) -> None:
        found = [c for number, call in enumerate(space.calls) if (c := _convolution(space, number, call)) is not None]
        self.calls: IntArray = np.array([c.call for c in found], dtype=np.int64)
        self._in = _Channels([c.channels_in for c in found], len(space.groups))
        self._out = _Channels([c.channels_out for c in found], len(space.groups))
        self._unit_in = np.array([float(batch * c.positions_in) for c in found])
        self._unit_out = np.array([float(batch * c.positions_out) for c in found])
        self._counted = np.array([float(batch * c.counted_in) for c in found])
        self._taps = np.array([float(c.taps) for c in found])
        self._kinds = {k: np.array([c.kind == k for c in found], dtype=np.bool_) for k in ("depthwise", "transposed")}
        self._blocked = np.array([c.kind != "grouped" for c in found], dtype=np.bool_)
        self._pointwise = np.array([c.pointwise for c in found], dtype=np.bool_)
        flat = np.array([c.flat for c in found], dtype=np.bool_)
        self._never = flat & (threads < 2 and batch < _BLOCK)
        self._always = np.array(
            [c.kind in ("depthwise", "grouped") or c.wide or batch > 1 for c in found], dtype=np.bool_
        )
        self._element = element

    def __call__(self, w: FloatArray) -> FloatArray:
        """Return (N, K) bytes at the (N, G) widths."""
        given, made = self._in(w), self._out(w)
        one = ~self._never & (self._always | (given * self._counted > _SMALL_INPUT))
        taken: FloatArray = self._element * np.where(one, self._copies(given, made), self._patches(given, made))
        return taken

    def _copies(self, given: FloatArray, made: FloatArray) -> FloatArray:
        """oneDNN: input, weight and output in blocks, then the result beside the output in blocks."""
        block_in, block_out = (np.where(self._blocked, _up(c), c) for c in (given, made))
        depthwise = self._kinds["depthwise"]
        plain = (given < _BLOCK) & (self._taps > 1) & ~depthwise | ~self._blocked  # images with few channels
        copied = np.where(plain, 0.0, block_in) * self._unit_in
        weight = np.where(depthwise, 1.0, np.where(plain, given, block_in)) * block_out * self._taps
        after = block_out * self._unit_out
        copies = np.maximum(copied + weight + after - made * self._unit_out, after)
        found: FloatArray = np.where(self._kinds["transposed"], 2 * made * self._unit_out, copies)
        return found

    def _patches(self, given: FloatArray, made: FloatArray) -> FloatArray:
        """The matrix of patches; a 1 x 1 convolution needs none. Transposed: patches of the result."""
        transposed = self._kinds["transposed"]
        rows = np.where(transposed, made * self._unit_in, given * self._unit_out)
        found: FloatArray = np.where(self._pointwise, 0.0, rows * self._taps)
        return found


class _Channels:
    """Sizes of many dimensions at once."""

    def __init__(self, sizes: Sequence[AffineSize], n_groups: int) -> None:
        self._constant = np.array([float(size.constant) for size in sizes])
        self._linear = np.zeros((n_groups, len(sizes)))
        for column, size in enumerate(sizes):
            for group, multiplicity in size.terms:
                self._linear[group, column] += multiplicity

    def __call__(self, w: FloatArray) -> FloatArray:
        sizes: FloatArray = w @ self._linear + self._constant
        return sizes


def _up(channels: FloatArray) -> FloatArray:
    """Channels in full blocks."""
    blocks: FloatArray = np.ceil(channels / _BLOCK) * _BLOCK
    return blocks


def _convolution(space: SearchSpace, number: int, call: KernelCall) -> _Convolution | None:
    if call.operator not in _OPERATORS or not call.inputs or not call.outputs:
        return None
    given, made = (space.activations[index].sizes for index in (call.inputs[0], call.outputs[0]))
    weight = call.weights[0] if call.weights else space.activations[call.inputs[1]].sizes
    if len(given) != len(weight):
        return None  # without a batch
    settings = dict(call.settings)
    kernel = [size.constant for size in weight[2:]]
    transposed = call.operator.startswith("conv_transpose") or bool(settings.get("transposed"))
    groups, channels = int(settings.get("groups", 1)), given[1](space.full)
    kind = "transposed" if transposed else "dense" if groups == 1 else "depthwise" if groups == channels else "grouped"
    steps = [*_listed(settings.get("stride", 1)), *_listed(settings.get("dilation", 1))]
    area_in, area_out = (math.prod(size.constant for size in sizes[2:]) for sizes in (given, made))
    pointwise = set(kernel) == {1} and set(steps) == {1}
    flat = set(kernel[-2:]) == {1} and set(steps) == {1}
    wide = min(kernel[-2:]) > 3 and len(kernel) > 1
    taps, counted = math.prod(kernel), math.prod(size.constant for size in given[2:4])
    return _Convolution(number, given[1], made[1], area_in, counted, area_out, taps, kind, pointwise, flat, wide)


def _listed(value: object) -> Sequence[int]:
    return value if isinstance(value, list | tuple) else (int(str(value)),)
