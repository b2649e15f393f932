"""Data movement at new widths: shapes, slices, pieces and padding, and what must be counted for them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from autoprune.space.tracing.calls import Call, LabelGraph
from autoprune.space.tracing.labels import varies
from autoprune.space.tracing.resize import Arguments, Sized, first_index, operator_name

aten = torch.ops.aten


def resize_shape(call: Sized) -> Arguments:
    """The new shape in place of the traced one."""
    key = next((k for k in ("size", "shape") if k in call.arguments), None)
    return call.arguments if key is None else call.arguments | {key: list(call.out)}


def run_view(call: Sized) -> Any:
    """A view of the new shape, copied where what is left does not lie in memory so."""
    if "size" in call.arguments:
        return call.arguments["self"].reshape(call.out)
    return call.node.target(**call.arguments)  # type: ignore[operator]


def resize_unflatten(call: Sized) -> Arguments:
    """The new sizes of the dimensions that one becomes."""
    n = len(call.arguments["sizes"])
    dim = call.arguments["dim"] % (len(call.out) - n + 1)
    return call.arguments | {"sizes": list(call.out[dim : dim + n])}


def resize_slice(call: Sized) -> Arguments:
    """Consecutive indices begin after what is left of those before them; every n-th one has no channels."""
    dim = call.arguments.get("dim", 0) % len(call.out)
    if call.arguments.get("step", 1) != 1:
        return call.arguments
    start = call.before(dim, first_index(call.arguments.get("start"), call.traced_shape("self")[dim]))
    return call.arguments | {"start": start, "end": start + call.out[dim]}


def resize_narrow(call: Sized) -> Arguments:
    """As for a slice."""
    dim = call.arguments["dim"] % len(call.out)
    start = first_index(call.arguments["start"], call.traced_shape("self")[dim])
    return call.arguments | {"start": call.before(dim, start), "length": call.out[dim]}


def resize_select(call: Sized) -> Arguments:
    """As for a slice, of one index."""
    traced = call.traced_shape("self")
    dim = call.arguments["dim"] % len(traced)
    return call.arguments | {"index": call.before(dim, first_index(call.arguments["index"], traced[dim]))}


def resize_pad(call: Sized) -> Arguments:
    """Channels that nobody writes are padded as far as they are left."""
    x: Tensor = call.arguments["self"]
    pad = list(call.arguments["pad"])
    for index in range(len(pad) // 2):
        dim = x.ndim - 1 - index
        before, after = pad[2 * index : 2 * index + 2]
        if before >= 0 and after >= 0 and (before or after):
            pad[2 * index] = call.before(dim, before)
            pad[2 * index + 1] = call.out[dim] - x.shape[dim] - pad[2 * index]
    return call.arguments | {"pad": pad}


def resize_repeats(call: Sized) -> Arguments:
    """The length of the result follows from what is repeated, and one index is repeated as often as is left."""
    x, dim = call.arguments["self"], call.arguments.get("dim")
    repeats = call.arguments["repeats"]
    if dim is not None and isinstance(repeats, int) and x.shape[dim]:
        repeats = call.out[dim] // x.shape[dim]
    return call.arguments | {"repeats": repeats, "output_size": None}


def resize_repeat(call: Sized) -> Arguments:
    """As often as it takes to reach the new shape."""
    key = next(k for k in ("repeats", "dims") if k in call.arguments)
    shape = (1,) * (len(call.out) - call.arguments["self"].ndim) + tuple(call.arguments["self"].shape)
    given = [1] * (len(call.out) - len(call.arguments[key])) + list(call.arguments[key])
    times = [n // old if old else times for n, old, times in zip(call.out, shape, given, strict=True)]
    return call.arguments | {key: times}


def run_joined(call: Sized) -> Any:
    """As many copies of one value as are left."""
    values = call.arguments["tensors"]
    dim = call.arguments.get("dim", 0)
    if len(values) > 1 and all(value is values[0] for value in values):
        size = 1 if operator_name(call.node) == "stack" else values[0].shape[dim]
        values = values[:1] * (call.out[dim] // size) if size else values
    return call.node.target(**(call.arguments | {"tensors": values}))  # type: ignore[operator]


def run_split(call: Sized) -> Any:
    """Pieces of sizes of their own: equal ones may differ once they are cut."""
    x: Tensor = call.arguments["self"]
    dim = call.arguments.get("dim", 0) % x.ndim
    n_parts = len(call.node.meta["shapes"])
    sizes = [call.shape(index)[dim] for index in range(n_parts)]
    return aten.split_with_sizes.default(x, sizes, dim)


def note_slice(graph: LabelGraph, call: Call, made: Any) -> None:
    """What lies before a slice, and the slice; one that takes every n-th index begins where it did."""
    if int(call.get("step") or 1) == 1:
        graph.pieces.append(_before(graph, call, call.get("start")))
    graph.pieces.append(made)


def note_select(graph: LabelGraph, call: Call, made: Any) -> None:
    """What lies before the index."""
    graph.pieces.append(_before(graph, call, call.get("index")))


def note_split(graph: LabelGraph, call: Call, made: Any) -> None:
    """Every piece."""
    graph.pieces += made


def note_pad(graph: LabelGraph, call: Call, made: Any) -> None:
    """What is padded before channels."""
    for index, before in enumerate(call["pad"][::2]):
        dim = made.ndim - 1 - index
        if before > 0 and varies(made, dim):
            graph.note_before(made.narrow(dim, 0, before))


def _before(graph: LabelGraph, call: Call, start: int | None) -> Tensor:
    labels = graph.labels(call.tensors[0])
    dim = int(call.get("dim") or 0)
    return graph.note_before(labels.narrow(dim, 0, first_index(start, labels.shape[dim])))
