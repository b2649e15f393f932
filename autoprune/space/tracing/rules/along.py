"""Operators that act along some dimensions only: over pixels, nodes or frames, each channel on its own.

Sorting, selecting, cumulative and Fourier operators, and those that write at indices, do what they like along their
dimensions and are pointwise along all others. So one rule serves them all; its row says which dimensions those are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from autoprune.space.tracing.calls import Call, LabelGraph, Parameter
from autoprune.space.tracing.labels import FIXED, VOID, varies
from autoprune.space.tracing.rules.base import Rule, tie_within, unite_broadcast, unknown
from autoprune.space.tracing.rules.norms import reduction
from autoprune.space.tracing.rules.products import pairs_of_channels

Dims: TypeAlias = Callable[[Call], Iterable[int] | None]
"""The dimensions of a call along which it acts; None: all."""


def one_dim(call: Call) -> Iterable[int] | None:
    """The argument `dim`, the last dimension by default; all where it is given as None."""
    given = call.arguments.get("dim", -1)
    return None if given is None else [int(given)]


def all_or_one(call: Call) -> Iterable[int] | None:
    """The argument `dim`; all dimensions where it is left out."""
    return None if call.get("dim") is None else [int(call["dim"])]


def first_dim(call: Call) -> Iterable[int] | None:
    """The argument `dim` or `axis`, the first dimension by default."""
    return [int(call.get("dim") or call.get("axis") or 0)]


def fourier_dims(call: Call) -> Iterable[int] | None:
    """The dimensions of a Fourier transform: those given, else the last ones (two, or as many as sizes are given)."""
    given = call.get("dim")
    if given is not None:
        return [given] if isinstance(given, int) else list(given)
    if call.name.endswith("n"):
        return None if call.get("s") is None else range(-len(call["s"]), 0)
    return [-2, -1] if call.name.endswith("2") else [-1]


def along(names: str, dims: Dims = one_dim, *, broadcasts: bool = False) -> Rule:
    """The rule of an operator that acts along `dims` of these tensor arguments, and pointwise along all others.

    Args:
        names: its arguments that have the dimensions of the result, the one that it may write into first.
        dims: a call -> its dimensions.
        broadcasts: a size of one fits any; otherwise operands of another size reach only some of the channels.
    """

    def rule(graph: LabelGraph, call: Call) -> Any:
        given = [call[name] for name in names.split() if isinstance(call.get(name), Tensor | Parameter)]
        n_dims = max(len(value.shape) for value in given)
        acted = dims(call)
        over = sorted({d % n_dims for d in (range(n_dims) if acted is None else acted)}) if n_dims else []
        operands = [_aligned(graph, call, value, over, n_dims) for value in given]
        channels = [d for d in range(n_dims) if any(varies(x, d) for x in operands)]
        if any(d in over for d in channels):
            return unknown(graph, call, f"{call.name} runs across channels")
        for dim in channels:
            sizes = {int(x.shape[dim]) for x in operands}
            if len(sizes - {1} if broadcasts else sizes) > 1:
                return unknown(graph, call, f"{call.name} of operands with other numbers of channels")
        flat = [collapsed(x, [d for d in range(n_dims) if d not in channels]) for x in operands]
        made = united(graph, call, flat, _silent(graph, call, names, channels))
        return _results(call, made, over)

    return rule


def cross_dim(call: Call) -> Iterable[int] | None:
    """The argument `dim`, else the first dimension of three."""
    return [int(call["dim"]) if call.get("dim") is not None else call.shape.index(3)]


def compared(graph: LabelGraph, call: Call) -> Any:
    """Two tensors compared over a dimension, by cosine, distance or product: channels of zero in both add nothing."""
    pair = call.tensors[:2]
    shape = np.broadcast_shapes(*(tuple(value.shape) for value in pair))
    operands = unite_broadcast(graph, call, [graph.labels(value) for value in pair], shape)
    made = united(graph, call, operands, {}) if operands else torch.tensor(FIXED).expand(shape)
    dim = int(call.arguments.get("dim", 1 if call.name == "cosine_similarity" else -1))
    return reduction(graph, replace(call, arguments={"self": made, "dim": dim, "keepdim": call.get("keepdim")}))


def distances(graph: LabelGraph, call: Call) -> Any:
    """`cdist`: rows of two tensors compared over the last dimension, to which channels that are zero add nothing.

    Rows that are channels are compared each with each.
    """
    operands = [graph.labels(call[name]) for name in ("x1", "x2")]
    if any(varies(x, x.ndim - 2) for x in operands):
        if any(varies(x, d) for x in operands for d in range(x.ndim) if d != x.ndim - 2):
            return unknown(graph, call, "distances between channels")
        rows, shape = [graph.unions.per_channel(x, x.ndim - 2, call.place) for x in operands], call.shape
        return pairs_of_channels(rows, [len(shape) - 2, len(shape) - 1], shape)
    rows = [collapsed(x, [x.ndim - 2]) for x in operands]
    shape = np.broadcast_shapes(*(tuple(x.shape) for x in rows))
    made = united(graph, call, [x.expand(shape) for x in rows], {})
    arguments = {"self": made, "dim": -1, "keepdim": True}
    return reduction(graph, replace(call, arguments=arguments)).expand(call.shape)


def select_scatter(graph: LabelGraph, call: Call) -> Any:
    """One index of a dimension is written."""
    dim = int(call["dim"]) % len(call["self"].shape)
    piece = graph.labels(call["src"]).unsqueeze(dim)
    return along("self src", first_dim)(graph, replace(call, arguments={**call.arguments, "src": piece}))


def searched(graph: LabelGraph, call: Call) -> Any:
    """Places of values in a sorted sequence, one for all or one for each channel."""
    if len(call["sorted_sequence"].shape) == 1:
        return along("self", lambda call: ())(graph, call)
    return along("sorted_sequence self", lambda call: [-1])(graph, call)


def sparse_product(graph: LabelGraph, call: Call) -> Any:
    """A sparse matrix mixes rows (nodes), each column on its own."""
    sparse, dense = call.tensors[-2:]
    if bool((graph.labels(sparse) > 0).any()):
        return unknown(graph, call, "a sparse matrix of channels")
    return along("dense", lambda call: [0])(graph, replace(call, arguments={"dense": dense}))


def unpooling(graph: LabelGraph, call: Call) -> Any:
    """Values go back to the pixels that a pooling took them from, channel by channel."""
    n_pixels = len(call["output_size"])
    return along("self indices", lambda call: range(-n_pixels, 0))(graph, call)


def _aligned(graph: LabelGraph, call: Call, value: Any, over: Sequence[int], n_dims: int) -> Tensor:
    labels = graph.labels(value)
    labels = labels.reshape([1] * (n_dims - labels.ndim) + list(labels.shape))
    beside = [d for d in range(n_dims) if d not in over]
    if isinstance(value, Parameter) and beside and len(value.shape) > 1:
        return tie_within(graph, labels, beside, f"{call.place} looks up rows")
    return labels


def collapsed(labels: Tensor, dims: Iterable[int]) -> Tensor:
    """One index of dimensions along which labels do not differ, the one that says something where others do not."""
    for dim in dims:
        if labels.shape[dim] > 1:
            alike = labels.stride(dim) == 0
            labels = labels.narrow(dim, 0, 1) if alike else labels.amax(dim, keepdim=True)
    return labels


def _silent(graph: LabelGraph, call: Call, names: str, channels: Sequence[int]) -> dict[int, Tensor]:
    """Number of an operand -> its labels, of operands that know no channels though they have as many.

    These are tensors of one value, and indices that forward has spread over all channels.
    """
    found = {}
    present = [name for name in names.split() if isinstance(call.get(name), Tensor | Parameter)]
    for number, name in enumerate(present):
        value, traced = call[name], call.traced.get(name)
        if not isinstance(value, Tensor) or bool((value > 0).any()):
            continue
        spread_out = isinstance(traced, Tensor) and all(
            traced.stride(d - len(value.shape)) == 0 for d in channels if traced.ndim == value.ndim
        )
        if bool((value == VOID).all()) or (channels and spread_out):
            found[number] = value
    return found


def united(graph: LabelGraph, call: Call, operands: Sequence[Tensor], silent: dict[int, Tensor]) -> Tensor:
    """Tie operands element by element; those that are silent take over what the others say."""
    shape = np.broadcast_shapes(*(tuple(x.shape) for x in operands))
    reason = f"{call.place} combines them with a tensor whose size is fixed"
    speaking = [x for number, x in enumerate(operands) if number not in silent]
    speaking = unite_broadcast(graph, call, speaking, shape) if speaking else []
    made = speaking[0] if speaking else torch.tensor(VOID).expand(shape)
    for operand in speaking[1:]:
        if "add" in call.name:
            graph.unions.mark_residual(made, operand)
        made = graph.unions.unite(made, operand, reason)
    for number, labels in silent.items():
        if not graph.adopt(labels, made) and call.mutates and number == 0:
            graph.unions.freeze(made, reason)  # a part of a tensor of zeros, whose other readers know nothing of it
    return made


def _results(call: Call, made: Tensor, over: Sequence[int]) -> Any:
    values = [call.value] if isinstance(call.value, Tensor) else list(call.value)
    found = [_like(made, value, over, call) for value in values]
    return found[0] if isinstance(call.value, Tensor) else found


def _like(made: Tensor, value: Tensor, over: Sequence[int], call: Call) -> Tensor:
    """The labels of one result; dimensions may be gone, and several quantiles lie along a new first one."""
    lies_first = call.name in ("quantile", "nanquantile") and isinstance(call["q"], Tensor) and call["q"].ndim == 1
    if value.ndim - lies_first == made.ndim - len(over):
        for dim in reversed(over):
            made = made.squeeze(dim)
    return (made[None] if lies_first else made).expand(tuple(value.shape))
