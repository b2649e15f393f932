"""Operators over pixels, channel by channel; and table lookups."""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor

from autoprune.space.tracing.calls import Call, LabelGraph
from autoprune.space.tracing.labels import spread, varies
from autoprune.space.tracing.rules.base import tie_within, unknown


def pooling(graph: LabelGraph, call: Call) -> Any:
    """Pooling over the trailing dimensions; channels pass through."""
    x = graph.labels(call.tensors[0])
    spatial = int(re.findall(r"(\d)d", call.name)[0])
    dim = x.ndim - spatial - 1
    channel = graph.unions.per_channel(x, dim, f"{call.place} pools several channels into one")
    pooled = spread(channel, dim, call.shape)
    return pooled if isinstance(call.value, Tensor) else [pooled for _ in call.value]  # with indices


def resampling(graph: LabelGraph, call: Call) -> Tensor:
    """Interpolation over the trailing dimensions of (N, C, …)."""
    x = graph.labels(call.tensors[0])
    if call.name.startswith("grid_sampler") and graph.attention == "heads" and 0 in graph.unions.splits(x):
        grid = graph.labels(call["grid"])
        if varies(grid, 0):  # heads folded into the batch, each with positions of its own (deformable attention)
            head = tie_within(graph, x, [0], f"{call.place} samples whole heads").amax(tuple(range(1, x.ndim)))
            reason = f"{call.place} samples whole heads"
            graph.unions.unite(head, graph.unions.per_channel(grid, 0, reason), reason)
            graph.heads.append(head)
            return spread(head, 0, call.shape)
    channel = graph.unions.per_channel(x, 1, f"{call.place} mixes several channels")
    return spread(channel, 1, call.shape)


def embedding(graph: LabelGraph, call: Call) -> Any:
    """A table lookup produces the channels of the table's second axis."""
    if not graph.is_weight(call["weight"]):
        return unknown(graph, call, "an embedding whose table is computed in forward")
    rows, writing = graph.axes_of(call["weight"])
    if not graph.is_parameter(call["weight"]):
        graph.unions.freeze(rows, f"{call.place} looks rows up by their number")
    positions = 1
    for n in call.shape[:-1]:
        positions *= n
    graph.write(call.layer, writing, producer=True, positions=positions)
    return spread(writing, len(call.shape) - 1, call.shape)
