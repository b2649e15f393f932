"""Banks of experts: rows of tokens, sorted by expert, each multiplied by the weight of its own."""

from __future__ import annotations

from typing import Any

from autoprune.space.tracing.calls import Call, LabelGraph, WeightLabels
from autoprune.space.tracing.labels import varies
from autoprune.space.tracing.rules.base import unknown
from autoprune.space.tracing.rules.products import multiply


def grouped_product(graph: LabelGraph, call: Call) -> Any:
    """(rows, in) by (experts, in, out): all experts lose the same channels, and none of them goes."""
    if not graph.is_weight(call["weight"]):
        return unknown(graph, call, "experts whose weight is computed in forward")
    factors = graph.weight(call["weight"]).factors
    for factor in factors:
        if varies(factor, 0):
            graph.unions.freeze(factor, f"{call.place} chooses experts by their number")
    inside = tuple(factor.select(0, 0) for factor in factors if not varies(factor, 0))
    return multiply(graph, call, [call["input"], WeightLabels(inside)], ["nx", "xy"], "ny", kind="uncounted")
