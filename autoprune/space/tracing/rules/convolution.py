"""Convolutions: plain, grouped and depthwise, 1-3d, also transposed."""

from __future__ import annotations

import math
from typing import Any

import torch

from autoprune.space.sizes import OperationKind
from autoprune.space.tracing.calls import Call, Channels, LabelGraph
from autoprune.space.tracing.labels import FIXED, spread
from autoprune.space.tracing.resize import Arguments, Sized
from autoprune.space.tracing.rules.base import fed, tie_parameter, unknown


def convolution(graph: LabelGraph, call: Call) -> Any:
    """A weight reads input channels and writes output channels; groups tie the same position of every group."""
    transposed = "transpose" in call.name or bool(call.get("transposed"))
    n_groups: int = call.get("groups") or 1
    copies = None if transposed or graph.is_weight(call["weight"]) else _one_filter(graph, call, n_groups)
    if not graph.is_weight(call["weight"]) and copies is None:
        return unknown(graph, call, "a convolution whose weight is computed in forward")
    weight = copies or graph.axes_of(call["weight"])
    x = graph.labels(call["input"])
    dim = x.ndim - (len(call["weight"].shape) - 1)
    incoming = graph.unions.per_channel(x, dim, f"{call.place} reads positions as one channel")
    if transposed:
        reading, writing = weight[0], weight[1].repeat(n_groups)  # the weight names the outputs of one group
    else:
        reading, writing = weight[1], weight[0]
    depthwise = n_groups > 1 and n_groups == len(incoming)
    if depthwise and not transposed:
        graph.unions.unite(incoming.repeat_interleave(len(writing) // n_groups), writing, fed(call))
    else:
        _tie_inputs(graph, incoming, reading, n_groups if not transposed else 1, call)
        _tie_groups(graph, incoming if transposed else writing, n_groups, call)
    if call.get("bias") is not None:
        tie_parameter(graph, call["bias"], writing, call)
    if not depthwise:
        graph.reads(call["weight"], 0 if transposed else 1)
    out = call.shape
    positions = math.prod(x.shape[dim + 1 :]) if transposed else math.prod(out[dim + 1 :])
    kernel = math.prod(call["weight"].shape[2:])
    batch = math.prod(out[:dim])
    kind: OperationKind = "unseen" if isinstance(call.get("padding"), str) else "conv"
    if call.name == "deform_conv2d":
        kind = "uncounted"
    graph.operation(call.layer, kind, batch * positions * kernel, [weight[0], weight[1]])
    graph.write(call.layer, writing, producer=not depthwise, positions=batch * math.prod(out[dim + 1 :]))
    return spread(writing, dim, out)


def deformable(graph: LabelGraph, call: Call) -> Any:
    """A convolution that looks where its offsets say: those have a fixed size, for each group of channels its own."""
    for name in ("offset", "mask"):
        graph.freeze(call[name], f"{call.place}: offsets have one place for each element of the kernel")
    groups = int(call.get("offset_groups") or 1)
    x = graph.labels(call["input"])
    if groups > 1:
        channels = graph.unions.per_channel(x, 1, f"{call.place} reads positions as one channel")
        _tie_groups(graph, channels, groups, call)
    return convolution(graph, call)


def _one_filter(graph: LabelGraph, call: Call, n_groups: int) -> list[Channels] | None:
    """The axes of one filter that is spread over all channels (a blur), each convolved on its own; else None."""
    labels = graph.labels(call["weight"])
    if n_groups == 1 or n_groups != len(labels) or labels.shape[1] != 1:
        return None
    if not graph.unions.is_spread(labels):
        graph.spread_out(labels, (0,))
        return None
    reason = f"{call.place} reads positions as one channel"
    return [graph.unions.per_channel(labels, 0, reason), torch.tensor(FIXED).expand(1)]


def _tie_inputs(graph: LabelGraph, incoming: Channels, reading: Channels, n_groups: int, call: Call) -> None:
    """Each group of a convolution reads the same positions inside its slice: tie across groups."""
    rows = incoming.reshape(n_groups, -1)
    graph.unions.unite(rows, reading.expand(rows.shape), fed(call))


def _tie_groups(graph: LabelGraph, channels: Channels, n_groups: int, call: Call) -> None:
    """Every group of a convolution must keep as many channels: position j of all groups is one channel."""
    rows = channels.reshape(n_groups, -1)
    graph.unions.unite(rows, rows[:1].expand(rows.shape), f"{call.place} is grouped")


def resize_depthwise(call: Sized) -> Arguments:
    """A group for each channel that is left, where it was so."""
    groups = call.arguments.get("groups", 1)
    if groups > 1 and groups == call.traced_shape("input")[1]:
        return call.arguments | {"groups": call.arguments["input"].shape[1]}
    return call.arguments
