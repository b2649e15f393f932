"""Indexing with tensors: `x[indices]` and `x[indices] = values`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from autoprune.space.tracing.calls import Call, LabelGraph, Parameter
from autoprune.space.tracing.labels import FIXED, VOID, varies
from autoprune.space.tracing.rules.along import collapsed, united
from autoprune.space.tracing.rules.base import tie_within, unknown


def lookup(graph: LabelGraph, call: Call) -> Any:
    """`x[indices]`: the indexed dimensions are positions, the others move."""
    x = _rows_of(graph, call)
    dims = [d for _, taken in _taken(call) for d in taken]
    if any(varies(x, d) for d in dims):
        return unknown(graph, call, "indexing of channels")
    selected = _selected(x, dims)
    n_new = len(call.shape) - selected.ndim
    return _with_positions(selected, dims, n_new).expand(call.shape)


def index_put(graph: LabelGraph, call: Call) -> Any:
    """`x[indices] = values`: the indexed dimensions are positions, the values go along the others.

    A mask over channels, too, chooses each element on its own; what it writes must be a single number then.
    """
    x, values = _rows_of(graph, call), graph.labels(call["values"])
    taken = list(_taken(call))
    dims = [d for _, found in taken for d in found]
    if any(varies(x, d) or _mask_varies(graph, mask) for mask, found in taken for d in found):
        return _masked_number(graph, call, x, values, taken)
    selected = _selected(x, dims)
    n_new = max([1 if mask is not None else 0 for mask, _ in taken] + [_positions(call)])
    target = _with_positions(selected, dims, n_new)
    offset = target.ndim - values.ndim
    if offset < 0:
        return unknown(graph, call, "values with more dimensions than what they are written to")
    values = values.reshape([1] * offset + list(values.shape))
    start = _place(dims)
    at = range(start, start + n_new)
    if any(varies(values, d) for d in at):
        return unknown(graph, call, "channels are written to positions")
    made = united(graph, call, [target, collapsed(values, at)], _void(call["self"], values))
    kept = made.movedim(list(at), list(range(n_new))).flatten(0, n_new - 1)[0] if n_new else made
    for dim in sorted(dims):
        kept = kept.unsqueeze(dim)
    return kept.expand(x.shape)


def _masked_number(
    graph: LabelGraph, call: Call, x: Tensor, values: Tensor, taken: Sequence[tuple[Tensor | None, list[int]]]
) -> Any:
    (mask, dims), *others = taken
    if others or mask is None or values.numel() != 1 or bool((values > 0).any()):
        return unknown(graph, call, "indexing of channels")
    view = [x.shape[d] if d in dims else 1 for d in range(x.ndim)]
    return united(graph, call, [x, mask.reshape(view).expand(x.shape)], {})


def _rows_of(graph: LabelGraph, call: Call) -> Tensor:
    source = call.tensors[0]
    x = graph.labels(source)
    if isinstance(source, Parameter) and x.ndim > 1:
        dims = [d for _, taken in _taken(call) for d in taken]
        return tie_within(graph, x, [d for d in range(x.ndim) if d not in dims], f"{call.place} looks up rows")
    return x


def _taken(call: Call) -> Iterator[tuple[Any, list[int]]]:
    """For every index its labels where it is a mask, else None, and the dimensions it stands for."""
    dim = 0
    for index, traced in zip(call["indices"], call.traced["indices"], strict=True):
        mask = traced is not None and traced.dtype in (torch.bool, torch.uint8)
        length = traced.ndim if mask else 1
        if traced is not None:
            yield (index if mask else None), list(range(dim, dim + length))
        dim += length


def _positions(call: Call) -> int:
    """Dimensions of what indices that are no masks point to."""
    given = (traced for traced in call.traced["indices"] if traced is not None)
    return max((t.ndim for t in given if t.dtype not in (torch.bool, torch.uint8)), default=0)


def _mask_varies(graph: LabelGraph, mask: Any) -> bool:
    return mask is not None and any(varies(graph.labels(mask), d) for d in range(len(mask.shape)))


def _selected(x: Tensor, dims: Sequence[int]) -> Tensor:
    for dim in sorted(dims, reverse=True):
        x = collapsed(x, [dim]).select(dim, 0) if x.shape[dim] else x.new_full(x.shape[:dim] + x.shape[dim + 1 :], VOID)
    return x


def _place(dims: Sequence[int]) -> int:
    """Where torch puts the positions: in the place of the indices, or first where these are not side by side."""
    return dims[0] if dims and list(dims) == list(range(dims[0], dims[-1] + 1)) else 0


def _with_positions(selected: Tensor, dims: Sequence[int], n_new: int) -> Tensor:
    at = _place(dims)
    return selected.reshape([*selected.shape[:at], *[1] * n_new, *selected.shape[at:]])


def _void(written: Any, values: Tensor) -> dict[int, Tensor]:
    """Which of the two, what is written into and what is written, knows no channels."""
    silent = {0: written} if isinstance(written, Tensor) and bool((written == VOID).all()) else {}
    return silent | (
        {1: values} if bool((values == VOID).all()) or (values.numel() == 1 and values.max() == FIXED) else {}
    )
