"""Operators that act element by element."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from autoprune.space.tracing.calls import Call, LabelGraph
from autoprune.space.tracing.labels import FIXED, VOID, varies
from autoprune.space.tracing.rules.base import stretched, tie_parameter, unite_broadcast, unknown

_SUMS = {"add", "add_", "sub", "sub_"}


def is_pointwise(target: Any) -> bool:
    """True for operators that torch tags as acting element by element, in place or not."""
    name = target.__name__.split(".")[0]
    if torch.Tag.pointwise in getattr(target, "tags", ()):
        return True
    functional = getattr(torch.ops.aten, name.rstrip("_"), None) if name.endswith("_") else None
    overload = getattr(functional, "default", None) or getattr(functional, "Tensor", None)
    return functional is not None and torch.Tag.pointwise in getattr(overload, "tags", ())


def pointwise(graph: LabelGraph, call: Call) -> Any:
    """Operands with channels are united element by element."""
    if not call.tensors:
        return unknown(graph, call)
    shape, operands = call.shape, [graph.labels(value) for value in call.tensors]
    spread_out = None if call.mutates else _over_numbers(graph, call, operands, shape)
    if spread_out is not None:
        return spread_out
    speaking = unite_broadcast(graph, call, operands, shape)
    if not speaking:
        return torch.tensor(FIXED).expand(shape)
    if not call.mutates:  # a positional parameter has labels of its own at every position; go on with the others'
        speaking.sort(key=lambda operand: (graph.unions.is_spread(operand), _stored(operand)))
    result = speaking[0]
    for operand in speaking[1:]:
        reason = f"{call.place} combines them with a tensor whose size is fixed"
        if call.mutates:
            graph.unions.freeze(operand[result == VOID], reason)
        if call.name in _SUMS and not call.has_parameter:
            graph.unions.mark_residual(result, operand)
        result = graph.unions.unite(result, operand, reason)
    for value in call.tensors:
        graph.follow(value, result)
    return result


def _over_numbers(graph: LabelGraph, call: Call, operands: Sequence[Tensor], shape: Sequence[int]) -> Tensor | None:
    """A constant that meets a larger tensor of one number (a mask added to zeros for every head) is spread over it."""
    numbers = [bool((labels == VOID).all()) for labels in operands]
    known = [labels for labels, number in zip(operands, numbers, strict=True) if not number]
    if not known or not any(numbers) or not all(graph.unions.is_constant(labels) for labels in known):
        return None
    before = np.broadcast_shapes(*(labels.shape for labels in known))
    if math.prod(before) == math.prod(shape):
        return None
    first, *others = (labels.expand(before) for labels in known)
    for labels in others:
        first = graph.unions.unite(first, labels, f"{call.place} combines them with a tensor whose size is fixed")
    made = stretched(graph, call, first, shape)
    for value in call.tensors:
        graph.follow(value, made)
    return made


def _stored(labels: Tensor) -> int:
    return math.prod(n for n, stride in zip(labels.shape, labels.stride(), strict=True) if stride)


def same(graph: LabelGraph, call: Call) -> Tensor:
    """The output has the channels of the first tensor argument, element by element."""
    return graph.labels(call.tensors[0])


def parts_of_complex(graph: LabelGraph, call: Call) -> Tensor:
    """Real and imaginary parts beside each other, along a new last dimension."""
    return graph.labels(call["self"])[..., None].expand(call.shape)


def complex_of_parts(graph: LabelGraph, call: Call) -> Any:
    """Numbers whose real and imaginary parts lie along the last dimension."""
    x = graph.labels(call["self"])
    return unknown(graph, call, "complex numbers of channels") if varies(x, x.ndim - 1) else x.amax(-1)


def constant(graph: LabelGraph, call: Call) -> Tensor:
    """Tensors filled with one value say nothing about channels, and are as many as what they meet."""
    graph.fills.append(graph.node)
    return torch.tensor(VOID).expand(call.shape)


def like(graph: LabelGraph, call: Call) -> Tensor:
    """Tensors filled with one value, as large as another one: they follow its channels."""
    x = graph.labels(call.tensors[0])
    return torch.where(x > 0, x, VOID)


def prelu(graph: LabelGraph, call: Call) -> Tensor:
    """One slope for all channels, or one per channel along dimension 1."""
    x = graph.labels(call["self"])
    slopes = call["weight"]
    if math.prod(slopes.shape) > 1:
        channel = graph.unions.per_channel(x, min(1, x.ndim - 1), f"{call.place} scales positions as one channel")
        tie_parameter(graph, slopes, channel, call)
    return x


def glu(graph: LabelGraph, call: Call) -> Any:
    """The first half of a dimension gated by the second: channel i goes with channel i of the other half."""
    x = graph.labels(call["self"])
    dim = call.get("dim")
    dim = -1 if dim is None else int(dim)
    first, second = x.chunk(2, dim)
    return graph.unions.unite(first, second, f"{call.place} gates them with channels of fixed number")
