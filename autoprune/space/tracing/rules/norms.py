"""Norms, reductions and softmax. A statistic over channels runs over those that survive."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from autoprune.space.tracing.calls import Call, LabelGraph
from autoprune.space.tracing.labels import FIXED, spread
from autoprune.space.tracing.resize import Arguments, Sized
from autoprune.space.tracing.rules.base import tie_parameter, tie_within, unite_broadcast, unknown, varying


def batch_norm(graph: LabelGraph, call: Call) -> Tensor:
    """One scale, shift, mean and variance per channel (dimension 1); instance norm alike."""
    x = graph.labels(call["input"])
    channel = graph.unions.per_channel(x, 1, f"{call.place} normalises positions as one channel")
    for name in ("weight", "bias", "running_mean", "running_var"):
        if call.get(name) is not None:
            tie_parameter(graph, call[name], channel, call)
    return spread(channel, 1, x.shape)


def layer_norm(graph: LabelGraph, call: Call) -> Any:
    """Layer and RMS norm over the trailing dimensions; scale and shift go with the channels.

    Where channels lie along a normalised dimension and another one (norms inside each head), heads stay whole.
    """
    x = graph.labels(call["input"])
    n_trailing = len(call["normalized_shape"])
    outer = [d for d in graph.unions.splits(x) if d < x.ndim - n_trailing]
    affine = [call[name] for name in ("weight", "bias") if call.get(name) is not None]
    if outer and graph.attention == "heads":
        for parameter in affine:
            graph.unions.freeze(graph.labels(parameter), f"{call.place} normalises whole heads")
        return tie_within(graph, x, outer, f"{call.place} normalises them together")
    if n_trailing == 1:
        channel = graph.unions.per_channel(x, x.ndim - 1, f"{call.place} normalises positions as one channel")
        for parameter in affine:
            tie_parameter(graph, parameter, channel, call)
        return spread(channel, x.ndim - 1, x.shape)
    for parameter in affine:
        x = _unite_all(graph, call, unite_broadcast(graph, call, [x, graph.labels(parameter)], x.shape))
    return x


def group_norm(graph: LabelGraph, call: Call) -> Tensor:
    """Cut whole normalisation groups, or the same positions in each, whichever leaves more to choose from."""
    x = graph.labels(call["input"])
    n_groups = int(call["num_groups"])
    channel = graph.unions.per_channel(x, 1, f"{call.place} normalises positions as one channel")
    for name in ("weight", "bias"):
        if call.get(name) is not None:
            tie_parameter(graph, call[name], channel, call)
    rows = channel.reshape(n_groups, -1)
    keep = 0 if whole_groups(n_groups, len(channel)) else 1
    channel = tie_within(graph, rows, [keep], f"{call.place} normalises them together").reshape(-1)
    return spread(channel, 1, x.shape)


def whole_groups(n_groups: int, channels: int) -> bool:
    """True where a cut group norm loses whole groups, False where every group loses channels."""
    return n_groups * n_groups >= channels


def reduction(graph: LabelGraph, call: Call) -> Any:
    """Means, sums, norms and maxima, over positions or over channels."""
    x = graph.labels(call.tensors[0])
    given = call.get("dim")
    dims = list(range(x.ndim)) if given is None or given == [] else ([given] if isinstance(given, int) else list(given))
    dims = [d % x.ndim for d in dims]
    over = [d for d in varying(x) if d in dims]
    if over:
        if call.name in {"max", "min"} and 1 in call.read:
            return unknown(graph, call, "the index of a channel")
        beside = [d for d in varying(x) if d not in dims]
        if beside:
            x = tie_within(graph, x, beside, f"{call.place} reduces them together")
        else:
            x = torch.tensor(FIXED).expand(x.shape)
    reduced = x.amax(dims, keepdim=bool(call.get("keepdim"))) if dims else x
    return reduced if isinstance(call.value, Tensor) else [reduced for _ in call.value]


def along_dim(graph: LabelGraph, call: Call) -> Any:
    """Softmax and its kin: over positions, or over the channels that survive."""
    return graph.labels(call.tensors[0])


def _unite_all(graph: LabelGraph, call: Call, speaking: list[Tensor]) -> Tensor:
    result = speaking[0]
    for operand in speaking[1:]:
        result = graph.unions.unite(result, operand, f"{call.place} has a fixed size")
    return result


def resize_norm(call: Sized) -> Arguments:
    """The trailing dimensions that are left."""
    n = len(call.arguments["normalized_shape"])
    return call.arguments | {"normalized_shape": list(call.arguments["input"].shape[-n:])}


def resize_group_norm(call: Sized) -> Arguments:
    """As many groups as are left, where whole groups go."""
    n_groups, channels = call.arguments["num_groups"], call.traced_shape("input")[1]
    if whole_groups(n_groups, channels):
        n_groups = call.arguments["input"].shape[1] // (channels // n_groups)
    return call.arguments | {"num_groups": n_groups}
