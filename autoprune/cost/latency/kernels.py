"""The operator calls of a graph as kernels: what of a call's time is fixed, and on which sizes the rest depends.

Two calls with the same operator, settings and fixed sizes run the same kernel at other channel counts; one table of
measured times serves both, in this network and in others.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias, final

import numpy as np

from autoprune.space.groups import FloatArray, SearchSpace
from autoprune.space.sizes import Activation, AffineSize, KernelCall

Dimension: TypeAlias = int | tuple[int, int]
"""A fixed size, or (number of an axis of the kernel, factor): the size is the factor times the axis."""

KernelKind: TypeAlias = Literal["convolution", "depthwise", "product", "norm", "elementwise", "other"]

_CONVOLUTIONS = (
    "conv1d",
    "conv2d",
    "conv3d",
    "convolution",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
)
_PRODUCTS = ("linear", "matmul", "mm", "bmm", "addmm", "baddbmm", "einsum", "scaled_dot_product_attention")
_NORMS = ("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm")
_ELEMENTWISE: tuple[str, ...] = (
    "relu",
    "relu6",
    "hardtanh",
    "hardswish",
    "hardsigmoid",
    "silu",
    "gelu",
    "sigmoid",
    "tanh",
    "elu",
)
_ELEMENTWISE += ("leaky_relu", "mish", "clamp", "add", "sub", "mul", "div", "neg", "exp", "sqrt", "pow", "prelu")
FUSED = ("batch_norm", *_ELEMENTWISE)
"""What fusing backends run inside the product before it."""


@final
@dataclass(frozen=True, slots=True)
class Operand:
    """A tensor that a kernel reads.

    Attributes:
        dimensions: its shape, for a batch of one.
        dtype: as traced.
        role: "batched" where the first dimension grows with the batch, "fixed" for other activations, "weight".
    """

    dimensions: tuple[Dimension, ...]
    dtype: str
    role: Literal["batched", "fixed", "weight"]


@final
@dataclass(frozen=True)
class DeviceKernel:
    """One operator with its settings and fixed sizes.

    Attributes:
        operator: as in `KernelCall`.
        settings: the arguments that are no tensors, by name; those that follow a size are left out.
        operands: activations, then weights, each in argument order.
        axes: how many sizes vary; a table has an axis for each of up to two, for more one of all elements together.
    """

    operator: str
    settings: tuple[tuple[str, Any], ...]
    operands: tuple[Operand, ...]
    axes: int

    @cached_property
    def name(self) -> str:
        """A text that tells it from all others; also for people."""
        letters = "abcdefghijklmnopqrstuvwxyz"

        def size(d: Dimension) -> str:
            return str(d) if isinstance(d, int) else (str(d[1]) if d[1] > 1 else "") + (letters + "*")[min(d[0], 26)]

        shapes = [f"{o.role[0]}:{o.dtype}[{','.join(map(size, o.dimensions))}]" for o in self.operands]
        settings = [f"{key}={value}" for key, value in self.settings if value not in (None, False, "None", "False")]
        return f"{self.operator}({' '.join([*shapes, *settings])})".replace(" ", ";")

    @property
    def kind(self) -> KernelKind:
        """Which part of a network's time it belongs to."""
        operator = self.operator.rstrip("_")
        if operator in _CONVOLUTIONS:
            return "depthwise" if ("groups", "every channel") in self.settings else "convolution"
        if operator in _PRODUCTS:
            return "product"
        if operator in _NORMS:
            return "norm"
        return "elementwise" if operator in _ELEMENTWISE else "other"

    @property
    def table_axes(self) -> int:
        """Axes of its table: 0, 1 or 2."""
        return self.axes if self.axes <= 2 else 1

    def shapes(self, sizes: Sequence[int], *, batch: int = 1) -> list[tuple[int, ...]]:
        """Shape of each operand where the axes have these sizes."""
        shapes = []
        for operand in self.operands:
            shape = [d if isinstance(d, int) else d[1] * sizes[d[0]] for d in operand.dimensions]
            if operand.role == "batched" and shape:
                shape[0] *= batch
            shapes.append(tuple(shape))
        return shapes

    def elements(self, sizes: Sequence[FloatArray]) -> FloatArray:
        """(N,) elements of all operands together, for as many (N,) sizes as there are axes."""
        total = np.zeros_like(sizes[0], dtype=np.float64)
        for operand in self.operands:
            fixed = math.prod(d if isinstance(d, int) else d[1] for d in operand.dimensions)
            total += math.prod((sizes[d[0]] for d in operand.dimensions if not isinstance(d, int)), start=float(fixed))
        return total


@final
@dataclass(frozen=True, slots=True)
class TimedCall:
    """A call of a network that takes time.

    Attributes:
        kernel: what runs.
        sizes: the sizes of the kernel's axes, as functions of the widths.
        layer: path of the module.
        switch: index of the block group that switches it off; -1: always there.
        read: shapes of the activations it reads, for a batch of one.
        written: of those it makes.
        weights: of the parameters and buffers it reads.
    """

    kernel: DeviceKernel
    sizes: tuple[AffineSize, ...]
    layer: str
    switch: int
    read: tuple[tuple[AffineSize, ...], ...]
    written: tuple[tuple[AffineSize, ...], ...]
    weights: tuple[tuple[AffineSize, ...], ...]


def timed_calls(space: SearchSpace) -> tuple[TimedCall, ...]:
    """The calls of a space that take time, in graph order: all but views."""
    batch = space.traced_batch
    return tuple(_timed(space, call, batch) for call in space.calls if not _is_view(space, call))


def _is_view(space: SearchSpace, call: KernelCall) -> bool:
    """Its results lie in memory that was there before, and it does not write to it."""
    shared = all(space.activations[index].storage != index for index in call.outputs)
    return not call.outputs or (shared and not call.operator.endswith("_"))


def _timed(space: SearchSpace, call: KernelCall, batch: int) -> TimedCall:
    inputs = [space.activations[index] for index in call.inputs]
    read = tuple(_of_one(a, batch) for a in inputs)
    shapes = [*read, *call.weights]
    axes: list[AffineSize] = []
    dimensions = [tuple(_dimension(size, axes) for size in shape) for shape in shapes]
    kinds: list[tuple[str, Literal["batched", "fixed", "weight"]]]
    kinds = [(a.dtype, "batched" if a.batched else "fixed") for a in inputs] + [("float32", "weight")] * len(
        call.weights
    )
    operands = tuple(Operand(d, *kind) for d, kind in zip(dimensions, kinds, strict=True))
    kernel = DeviceKernel(call.operator, _settings(call, operands), operands, len(axes))
    written = tuple(_of_one(space.activations[index], batch) for index in call.outputs)
    return TimedCall(kernel, tuple(axes), call.layer, call.switch, read, written, call.weights)


def _of_one(activation: Activation, batch: int) -> tuple[AffineSize, ...]:
    """Its shape for a batch of one."""
    first = activation.sizes[0] if activation.sizes else AffineSize(0)
    if not activation.batched or not activation.sizes or first.terms or first.constant % batch:
        return activation.sizes
    return AffineSize(first.constant // batch), *activation.sizes[1:]


def _dimension(size: AffineSize, axes: list[AffineSize]) -> Dimension:
    if not size.terms:
        return size.constant
    factor = math.gcd(size.constant, *(multiplicity for _, multiplicity in size.terms))
    unit = AffineSize(size.constant // factor, tuple((group, m // factor) for group, m in size.terms))
    if unit not in axes:
        axes.append(unit)
    return axes.index(unit), factor


def _settings(call: KernelCall, operands: Sequence[Operand]) -> tuple[tuple[str, Any], ...]:
    """Settings, with those that follow a size replaced by how they do."""
    settings = dict(call.settings)
    if settings.get("groups", 1) != 1:
        weight = next((o.dimensions for o in operands if o.role == "weight"), ())
        settings["groups"] = "every channel" if len(weight) > 1 and weight[1] == 1 else "of the shapes"
    if "normalized_shape" in settings:
        settings["normalized_shape"] = len(settings["normalized_shape"] or ())
    return tuple(settings.items())


def distinct_kernels(calls: Iterable[TimedCall]) -> dict[str, tuple[DeviceKernel, list[TimedCall]]]:
    """Name -> the kernel and the calls that run it, in order of first appearance."""
    found: dict[str, tuple[DeviceKernel, list[TimedCall]]] = {}
    for call in calls:
        found.setdefault(call.kernel.name, (call.kernel, []))[1].append(call)
    return found
