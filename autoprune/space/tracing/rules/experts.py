"""Banks of experts: rows of tokens, sorted by expert, each multiplied by the weight of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from autoprune.space.tracing.calls import Call, Channels, LabelGraph, WeightLabels
from autoprune.space.tracing.labels import varies
from autoprune.space.tracing.rules.base import unknown
from autoprune.space.tracing.rules.products import multiply


def grouped_product(graph: LabelGraph, call: Call) -> Any:
    """(rows, in) by (experts, in, out), or rows of each expert apart: all lose the same channels, none goes."""
    x, weight = (call.arguments.get(name, call.get(other)) for name, other in (("input", "self"), ("weight", "mat2")))
    if not graph.is_weight(weight) or isinstance(x, WeightLabels) or len(weight.shape) != 3:
        return unknown(graph, call, "experts whose weight is computed in forward")
    factors = graph.weight(weight).factors
    if not call.layer:
        call = replace(call, layer=_owner(graph, factors))
    for factor in factors:
        if varies(factor, 0):
            graph.unions.freeze(factor, f"{call.place} chooses experts by their number")
    if call.name == "_grouped_mm":
        for axis in graph.axes_of(weight)[1:]:
            _in_steps(graph, axis, max(1, 16 // call.value.element_size()), f"{call.place} wants rows of 16 bytes")
    rows = "gn" if len(x.shape) == 3 else "n"
    inside = WeightLabels(tuple(factor.select(0, 0) for factor in factors if not varies(factor, 0)))
    made = multiply(graph, call, [x, inside], [f"{rows}x", "xy"], f"{rows}y", kind="uncounted")
    bias = call.get("bias")
    if bias is not None and not isinstance(made, WeightLabels):
        return unknown(graph, replace(call, arguments={"made": made, "bias": bias}), "experts with a bias")
    return made


def _in_steps(graph: LabelGraph, axis: Channels, step: int, reason: str) -> None:
    """Tie neighbours, as torch's kernel takes rows of whole steps only."""
    if len(axis) % step == 0:
        pieces = axis.reshape(-1, step)
        graph.unions.unite(pieces, pieces[:, :1].expand(pieces.shape), reason)


def _owner(graph: LabelGraph, factors: Sequence[Tensor]) -> str:
    """The parameter whose labels these are; bare ones of the model itself have no layer."""
    known = {int(factor.max()) for factor in factors}
    owners = (p.name for p, axes in graph.axis_labels.items() if any(int(axis.max()) in known for axis in axes))
    name = next(owners, "")
    return name.rpartition(".")[0] or name
