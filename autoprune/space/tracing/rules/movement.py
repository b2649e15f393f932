"""Data movement: torch itself moves the labels; folds and padding need a little more."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from autoprune.space.tracing.calls import Call, LabelGraph, Parameter
from autoprune.space.tracing.labels import spread, tighten, varies
from autoprune.space.tracing.resize import first_index
from autoprune.space.tracing.rules.base import is_one, stretched, tie_within, unknown, varying


def movement(graph: LabelGraph, call: Call) -> Any:
    """Views, slices, concatenations …: the call itself, on labels."""
    arguments = call.with_labels(graph.labels)
    if call.name in ("view", "_unsafe_view") and "size" in arguments:
        return tighten(arguments["self"].reshape(arguments["size"]))  # labels lie in memory in their own way
    try:
        moved = call.target(**arguments)
    except (NotImplementedError, RuntimeError):  # no integer kernel; labels are exact in float64, and padding is VOID
        doubles = {k: v.double() + 1 if isinstance(v, Tensor) else v for k, v in arguments.items()}
        moved = call.target(**doubles).long() - 1
    if isinstance(moved, Tensor):
        return tighten(moved)
    return [tighten(part) for part in moved]


def pad(graph: LabelGraph, call: Call) -> Any:
    """Padding of positions belongs to the channel it lies in; padding beside channels makes channels nobody writes."""
    x = graph.labels(call.tensors[0])
    constant = call.name == "constant_pad_nd" or call.get("mode") in {None, "constant"}
    for index, (before, after) in enumerate(zip(call["pad"][::2], call["pad"][1::2], strict=True)):
        dim = x.ndim - 1 - index
        if not varies(x, dim) and x.shape[dim]:
            size = x.shape[dim] + before + after
            x = x.narrow(dim, 0, 1).expand([size if d == dim else n for d, n in enumerate(x.shape)])
        elif not constant or before < 0 or after < 0:
            return unknown(graph, call, "padding of channels with other channels")
        elif before or after:
            sides = [_beside(graph, x, dim, length) for length in (before, after)]
            x = torch.cat([sides[0], x, sides[1]], dim)
    return tighten(x)


def _beside(graph: LabelGraph, x: Tensor, dim: int, length: int) -> Tensor:
    return spread(graph.unions.fresh(length), dim, [length if d == dim else n for d, n in enumerate(x.shape)])


def expand(graph: LabelGraph, call: Call) -> Any:
    """`expand`, `repeat` and the like: one value in several copies says nothing about what it meets."""
    x = graph.labels(call.tensors[0])
    spreads = is_one(x) or (graph.unions.is_constant(x) and graph.node not in graph.together)
    if len(call.tensors) > 1 or not spreads or len(call.shape) < x.ndim:
        return movement(graph, call)
    return stretched(graph, call, x, call.shape, inner=call.name == "repeat_interleave")


def expand_as(graph: LabelGraph, call: Call) -> Tensor:
    """A value spread over channels that it says nothing about takes their labels."""
    x, other = (graph.labels(value) for value in call.tensors)
    aligned = x.reshape([1] * (other.ndim - x.ndim) + list(x.shape))
    dims = varying(other)
    if dims and is_one(x) and all(aligned.shape[d] == 1 for d in dims):
        graph.unions.freeze(x, f"{call.place} spreads one channel over all others")
        return other
    return stretched(graph, call, x, other.shape)


def as_other(graph: LabelGraph, call: Call) -> Tensor:
    """`view_as`: what takes its shape from another value has as many channels as that."""
    made: Tensor = movement(graph, call)
    return graph.unions.unite(made, graph.labels(call.tensors[1]), f"{call.place} takes a fixed shape")


def broadcast(graph: LabelGraph, call: Call) -> list[Tensor]:
    """`broadcast_tensors`: each as by `expand`."""
    return [stretched(graph, call, graph.labels(value), call.shape) for value in call.tensors]


def joined(graph: LabelGraph, call: Call) -> Any:
    """Values side by side; one value of one index beside itself is spread, as by `expand`."""
    first, *others = call.tensors
    dim = int(call.get("dim") or 0)
    if others and all(value is first for value in others):
        x = graph.labels(first)
        x = x.unsqueeze(dim) if call.name == "stack" else x
        if x.shape[dim] == 1 and (is_one(x) or graph.unions.is_constant(x)):
            return stretched(graph, call, x, call.shape)
    return movement(graph, call)


def select(graph: LabelGraph, call: Call) -> Any:
    """One index of a dimension. A single channel taken out of many has no dimension left to be cut along."""
    x = graph.labels(call.tensors[0])
    dim = int(call.get("dim") or 0)
    chosen = x.unbind(dim) if call.name == "unbind" else [x.select(dim, int(call["index"]))]
    if varies(x, dim) and len(varying(x)) == 1:
        for labels in chosen:
            graph.unions.freeze(labels, f"{call.place} takes single channels")
    return [tighten(labels) for labels in chosen] if call.name == "unbind" else tighten(chosen[0])


def strided_slice(graph: LabelGraph, call: Call) -> Any:
    """A slice of consecutive channels moves; where every n-th channel is taken, n neighbours go together."""
    x = graph.labels(call.tensors[0])
    dim = int(call.get("dim") or 0) % x.ndim
    if int(call.get("step") or 1) == 1 or not varies(x, dim):
        return movement(graph, call)
    heads = [d for d in graph.unions.splits(x) if d != dim]
    if not heads and _takes_all(call, x.shape[dim]):
        _tie_neighbours(graph, x, dim, call)
        return movement(graph, call)
    if not heads or graph.attention != "heads":
        return unknown(graph, call, "takes every n-th channel")
    whole = tie_within(graph, x, heads, f"{call.place} takes every n-th of them")
    return tighten(call.target(**{**call.with_labels(graph.labels), call.target._schema.arguments[0].name: whole}))


def _takes_all(call: Call, length: int) -> bool:
    """True where a slice takes one of every n neighbours, from the first to the last of them."""
    step, start, end = int(call["step"]), call.get("start"), call.get("end")
    taken = range(length)[start:end:step]
    return first_index(start, length) < step and len(taken) > 0 and taken[-1] + step >= length


def _tie_neighbours(graph: LabelGraph, x: Tensor, dim: int, call: Call) -> None:
    step = int(call["step"])
    firsts = torch.arange(x.shape[dim]) // step * step
    graph.unions.unite(x, x.index_select(dim, firsts), f"{call.place} takes every {step}th channel")


def index_select(graph: LabelGraph, call: Call) -> Any:
    """`index_select` along positions."""
    x = graph.labels(call.tensors[0])
    dim = int(call["dim"])
    if isinstance(call.tensors[0], Parameter) and x.ndim > 1:
        x = tie_within(graph, x, [d for d in range(x.ndim) if d != dim % x.ndim], f"{call.place} looks up rows")
    if varies(x, dim):
        return unknown(graph, call, "indexing of channels")
    return x.narrow(dim, 0, 1).expand([n if d == dim % x.ndim else x.shape[d] for d, n in enumerate(call.shape)])


def fold(graph: LabelGraph, call: Call) -> Any:
    """`F.fold`: (N, C x window, L) back to (N, C, H, W), overlaps added."""
    x = graph.labels(call.tensors[0])
    window = math.prod(call["kernel_size"])
    blocks = x.reshape(*x.shape[:-2], -1, window, x.shape[-1])
    channel = graph.unions.per_channel(blocks, blocks.ndim - 3, f"{call.place} adds positions of one channel")
    return spread(channel, len(call.shape) - 3, call.shape)
