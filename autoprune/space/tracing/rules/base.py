"""What rules share: giving up with a reason, and tying parameters to channels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from autoprune.space.tracing.calls import Call, Channels, LabelGraph
from autoprune.space.tracing.labels import FIXED, VOID, varies

Rule = Callable[[LabelGraph, Call], Any]
"""(graph, call) -> labels of the output: a tensor, or a list of them."""


def unknown(graph: LabelGraph, call: Call, why: str | None = None) -> Any:
    """Freeze whatever reaches the operator; its outputs cannot change size."""
    reason = f"{call.place}: {why or f'operator {call.target} has no rule'}"
    for value in call.tensors:
        graph.freeze(value, reason)
    graph.give_up(call, reason)
    fixed = torch.tensor(FIXED)
    if isinstance(call.value, Tensor):
        return fixed.expand(call.value.shape)
    if isinstance(call.value, tuple | list):
        return [fixed.expand(v.shape) if isinstance(v, Tensor) else v for v in call.value]
    return call.value


def tie_parameter(graph: LabelGraph, parameter: Any, channel: Channels, call: Call) -> None:
    """A vector with one entry per channel: a bias, a norm's scale, a running mean."""
    if graph.is_parameter(parameter):
        graph.unions.unite(graph.axes(parameter)[0], channel, f"{call.place} has a fixed number of channels")
    else:
        graph.unions.unite(graph.labels(parameter), channel, f"{call.place} uses a computed parameter")


def fed(call: Call) -> str:
    """Why inputs of fixed size freeze what is read beside them."""
    return f"{call.layer or call.place} reads them beside inputs of fixed size"


def varying(labels: Tensor) -> list[int]:
    """Dimensions along which channels change."""
    return [dim for dim in range(labels.ndim) if varies(labels, dim)]


def tie_within(graph: LabelGraph, labels: Tensor, keep: Sequence[int], reason: str) -> Tensor:
    """Tie all channels that differ only along dimensions outside `keep`; returns labels constant along those."""
    heads = labels.movedim(list(keep), list(range(len(keep))))
    rows = heads.reshape(*heads.shape[: len(keep)], -1)
    first = rows.max(dim=-1).values
    if rows.shape[-1] > 1 and bool((rows != rows[..., :1]).any()):
        graph.unions.unite(rows, first[..., None].expand(rows.shape), reason)
    view = [labels.shape[d] if d in keep else 1 for d in range(labels.ndim)]
    order = sorted(range(len(keep)), key=lambda i: keep[i])
    return first.permute(order).reshape(view).expand(labels.shape)


def unite_broadcast(graph: LabelGraph, call: Call, operands: Sequence[Tensor], shape: Sequence[int]) -> list[Tensor]:
    """Prepare operands of an elementwise operator for being united: those that speak, expanded to the output shape.

    An operand of size 1 along a dimension in which the others' channels vary says nothing about those channels (a
    spatial attention map, a mask). Where it also has a size of its own along another such dimension (a rotary angle
    for every dimension of a head), the others are tied along that one: whole heads stay whole.
    """
    padded = [o.reshape([1] * (len(shape) - o.ndim) + list(o.shape)) for o in operands]
    speaking: list[Tensor] = []
    tied: set[int] = set()
    spoken = [{d for d in graph.unions.splits(operand) if operand.shape[d] == shape[d]} for operand in padded]
    for index, operand in enumerate(padded):
        others = set().union(*(dims for i, dims in enumerate(spoken) if i != index)) if len(padded) > 1 else set()
        if any(operand.shape[d] == 1 and shape[d] > 1 for d in others):
            own = {d for d in others if operand.shape[d] > 1 and not bool((operand == VOID).all())}
            graph.unions.freeze(operand, f"{call.place} spreads one channel over all others")
            tied |= own
        else:
            speaking.append(operand.expand(tuple(shape)))
    for position, operand in enumerate(speaking if tied else ()):
        keep = [d for d in varying(operand) if d not in tied]
        if keep:
            reason = f"{call.place} combines them with a tensor whose size is fixed"
            speaking[position] = tie_within(graph, operand, keep, reason)
        else:
            graph.unions.freeze(operand, f"{call.place} combines them with a tensor whose size is fixed")
    return speaking
