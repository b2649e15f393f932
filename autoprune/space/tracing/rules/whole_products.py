"""What a matrix product costs where nothing in it can be cut: what its rule does not note is counted all the same."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from autoprune.space.sizes import OperationKind
from autoprune.space.tracing.calls import Call


def whole_product(call: Call) -> tuple[OperationKind, int] | None:
    """How fvcore sees a call and its multiply-adds; None for what is no product, or costs nothing that is counted."""
    count = _COUNTS.get(call.name)
    return None if count is None else count(call)


def _convolution(call: Call) -> tuple[OperationKind, int]:
    transposed = "transpose" in call.name or bool(call.get("transposed"))
    pixels = _shape(call, "input") if transposed else call.shape
    kind: OperationKind = "unseen" if isinstance(call.get("padding"), str) else "conv"
    return kind, math.prod(pixels) * math.prod(_shape(call, "weight")[1:])


def _linear(call: Call) -> tuple[OperationKind, int]:
    return "linear", math.prod(call.shape) * _shape(call, "input")[-1]


def _product(call: Call) -> tuple[OperationKind, int]:
    left, right = [tuple(value.shape) for value in call.traced.values() if isinstance(value, Tensor)][-2:]
    if len(left) < 2 or len(right) < 2:
        return "uncounted", math.prod(call.shape) * left[-1]
    return "unseen" if call.name == "baddbmm" else "matmul", math.prod(call.shape) * left[-1]


def _einsum(call: Call) -> tuple[OperationKind, int]:
    inputs = str(call["equation"]).replace(" ", "").partition("->")[0].split(",")
    if any("." in term for term in inputs):
        return "unseen", math.prod(call.shape)
    tensors = next(value for value in call.traced.values() if isinstance(value, list | tuple))
    sizes = {
        letter: int(size)
        for term, tensor in zip(inputs, tensors, strict=True)
        for letter, size in zip(term, tensor.shape, strict=True)
    }
    return "unseen", math.prod(sizes.values())


def _attention(call: Call) -> tuple[OperationKind, int]:
    query, key, value = (_shape(call, name) for name in ("query", "key", "value"))
    scores = math.prod(call.shape[:-2]) * query[-2] * key[-2]
    return "unseen", scores * (query[-1] + value[-1])


def _shape(call: Call, name: str) -> tuple[int, ...]:
    return tuple(int(size) for size in call.traced[name].shape)


_CONVOLUTIONS = (
    "conv1d",
    "conv2d",
    "conv3d",
    "convolution",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
)

_COUNTS: Mapping[str, Callable[[Call], tuple[OperationKind, Any]]] = {
    **dict.fromkeys(_CONVOLUTIONS, _convolution),
    "linear": _linear,
    **dict.fromkeys(("matmul", "mm", "bmm", "addmm", "baddbmm", "mv", "dot", "vdot"), _product),
    "einsum": _einsum,
    "scaled_dot_product_attention": _attention,
}
