"""Sizes baked into a traced graph, replaced by what is left of them: one entry per operator that carries sizes."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, final

import torch
from torch import Tensor, fx

from autoprune.space.tracing.functions import MARK
from autoprune.space.tracing.rules.norms import whole_groups

Arguments: TypeAlias = dict[str, Any]
aten = torch.ops.aten


@final
@dataclass(frozen=True, eq=False)
class Sized:
    """One operator call at new widths.

    Attributes:
        node: the call in the traced graph; its `meta["val"]` has the original shapes.
        arguments: argument name -> value, tensors already at their new sizes.
        shape: number of the output, None where there is one -> its new shape.
        before: (dimension, traced count) -> how many of the indices before a slice are left.
    """

    node: fx.Node
    arguments: Arguments
    shape: Callable[[int | None], tuple[int, ...]]
    before: Callable[[int, int], int]

    @property
    def out(self) -> tuple[int, ...]:
        """New shape of the result."""
        return self.shape(None)

    def traced_shape(self, argument: str) -> tuple[int, ...]:
        """Shape that a tensor argument had in the traced graph."""
        schema = self.node.target._schema.arguments  # type: ignore[union-attr]
        position = [a.name for a in schema].index(argument)
        given = self.node.args[position] if position < len(self.node.args) else self.node.kwargs[argument]
        shape: tuple[int, ...] = given.meta["shapes"][0]  # type: ignore[union-attr]
        return shape


def name_of(node: fx.Node) -> str:
    """Name under which the labels of a node's value are kept: outputs of a node with several are `name.0`, …"""
    if node.target is operator.getitem:
        return f"{name_of(node.args[0])}.{node.args[1]}"  # type: ignore[arg-type]
    return node.name


def operator_name(node: fx.Node) -> str:
    """Name without namespace and overload: "conv2d"."""
    return str(getattr(node.target, "__name__", node.target)).split(".")[0]


def named_arguments(node: fx.Node, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Arguments:
    """Arguments by the names of the operator's schema."""
    names = [a.name for a in node.target._schema.arguments]  # type: ignore[union-attr]
    return dict(zip(names, args, strict=False)) | dict(kwargs)


NO_KERNEL = ("getitem", MARK)
"""Operator names that stand for no computation."""


def call_resized(call: Sized) -> Any:
    """Run the operator with its sizes put right."""
    name = operator_name(call.node)
    if name in SPLITS:
        return _split(call)
    if name in ("view", "_unsafe_view") and "size" in call.arguments:
        return call.arguments["self"].reshape(call.out)
    resize = RESIZE.get(name)
    return call.node.target(**(resize(call) if resize else call.arguments))  # type: ignore[operator]


def _size(call: Sized) -> Arguments:
    key = next((k for k in ("size", "shape") if k in call.arguments), None)
    return call.arguments if key is None else call.arguments | {key: list(call.out)}


def _unflatten(call: Sized) -> Arguments:
    n = len(call.arguments["sizes"])
    dim = call.arguments["dim"] % (len(call.out) - n + 1)
    return call.arguments | {"sizes": list(call.out[dim : dim + n])}


def _slice(call: Sized) -> Arguments:
    dim = call.arguments.get("dim", 0) % len(call.out)
    if call.arguments.get("step", 1) != 1:
        return call.arguments
    start = call.before(dim, first_index(call.arguments.get("start"), call.traced_shape("self")[dim]))
    return call.arguments | {"start": start, "end": start + call.out[dim]}


def first_index(start: int | None, length: int) -> int:
    """First index that a slice takes."""
    return 0 if start is None else min(length, start + length if start < 0 else start)


def _narrow(call: Sized) -> Arguments:
    dim = call.arguments["dim"] % len(call.out)
    start = first_index(call.arguments["start"], call.traced_shape("self")[dim])
    return call.arguments | {"start": call.before(dim, start), "length": call.out[dim]}


def _select(call: Sized) -> Arguments:
    traced = call.traced_shape("self")
    dim = call.arguments["dim"] % len(traced)
    return call.arguments | {"index": call.before(dim, first_index(call.arguments["index"], traced[dim]))}


def _pad(call: Sized) -> Arguments:
    x: Tensor = call.arguments["self"]
    pad = list(call.arguments["pad"])
    for index in range(len(pad) // 2):
        dim = x.ndim - 1 - index
        before, after = pad[2 * index : 2 * index + 2]
        if before >= 0 and after >= 0 and (before or after):
            pad[2 * index] = call.before(dim, before)
            pad[2 * index + 1] = call.out[dim] - x.shape[dim] - pad[2 * index]
    return call.arguments | {"pad": pad}


def _normalized_shape(call: Sized) -> Arguments:
    n = len(call.arguments["normalized_shape"])
    return call.arguments | {"normalized_shape": list(call.arguments["input"].shape[-n:])}


def _group_norm(call: Sized) -> Arguments:
    n_groups, channels = call.arguments["num_groups"], call.traced_shape("input")[1]
    if whole_groups(n_groups, channels):
        n_groups = call.arguments["input"].shape[1] // (channels // n_groups)
    return call.arguments | {"num_groups": n_groups}


def _depthwise(call: Sized) -> Arguments:
    groups = call.arguments.get("groups", 1)
    if groups > 1 and groups == call.traced_shape("input")[1]:
        return call.arguments | {"groups": call.arguments["input"].shape[1]}
    return call.arguments


def _scale(call: Sized) -> Arguments:
    if call.arguments.get("scale") is not None:
        return call.arguments
    return call.arguments | {"scale": 1 / math.sqrt(call.traced_shape("query")[-1])}


def _states(call: Sized) -> Arguments:
    """Initial states of zeros keep the traced size: nothing in the graph ties them to the hidden width."""
    weight: Tensor = call.arguments["params"][1] if "params" in call.arguments else call.arguments["w_hh"]
    given = call.arguments["hx"]
    many = given if isinstance(given, list | tuple) else [given]
    states = [state[..., : weight.shape[1]].contiguous().to(weight.dtype) for state in many]
    return call.arguments | {"hx": states if isinstance(given, list | tuple) else states[0]}


def _repeat_interleave(call: Sized) -> Arguments:
    return call.arguments | {"output_size": None}


def _split(call: Sized) -> Any:
    x: Tensor = call.arguments["self"]
    dim = call.arguments.get("dim", 0) % x.ndim
    n_parts = len(call.node.meta["shapes"])
    sizes = [call.shape(index)[dim] for index in range(n_parts)]
    return aten.split_with_sizes.default(x, sizes, dim)


SPLITS = frozenset({"split", "split_with_sizes", "chunk", "tensor_split"})

RESIZE: dict[str, Callable[[Sized], Arguments]] = {
    **dict.fromkeys(["view", "reshape", "_unsafe_view", "expand", "broadcast_to"], _size),
    **dict.fromkeys(["zeros", "ones", "full", "empty", "new_zeros", "new_ones", "new_full", "new_empty"], _size),
    **dict.fromkeys(["rand", "randn"], _size),
    **dict.fromkeys(["layer_norm", "rms_norm"], _normalized_shape),
    **dict.fromkeys(["conv1d", "conv2d", "conv3d", "convolution"], _depthwise),
    **dict.fromkeys(["lstm", "gru", "rnn_tanh", "rnn_relu"], _states),
    **dict.fromkeys(["lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"], _states),
    "unflatten": _unflatten,
    "slice": _slice,
    "narrow": _narrow,
    "select": _select,
    "constant_pad_nd": _pad,
    "pad": _pad,
    "group_norm": _group_norm,
    "scaled_dot_product_attention": _scale,
    "repeat_interleave": _repeat_interleave,
}
"""Operator name -> how its arguments follow the widths; splits change the operator itself."""

CARRIES_SIZES = frozenset(RESIZE) | SPLITS
