"""One rule per kind of operator: what it does to channel labels.

Data movement runs on the labels themselves, pointwise operators unite their operands, and the few compute operators
below each have a rule. An operator without a rule freezes the channels that reach it and is named: never wrong, at
worst smaller. To support another operator, write a function `(graph, call) -> labels` and add it to `RULES`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from autoprune.space.calls import Call, Channels, LabelGraph
from autoprune.space.labels import FIXED, VOID, spread, tighten, varies

Rule = Callable[[LabelGraph, Call], Any]


def is_pointwise(target: Any) -> bool:
    """True for operators that act element by element, in place or not."""
    name = target.__name__.split(".")[0]
    if name in _POINTWISE_WITHOUT_TAG or torch.Tag.pointwise in getattr(target, "tags", ()):
        return True
    functional = getattr(torch.ops.aten, name.rstrip("_"), None) if name.endswith("_") else None
    overload = getattr(functional, "default", None) or getattr(functional, "Tensor", None)
    return functional is not None and torch.Tag.pointwise in getattr(overload, "tags", ())


def pointwise(graph: LabelGraph, call: Call) -> Tensor:
    """Operands with channels are united element by element.

    An operand of size 1 along a dimension in which the others' channels vary says nothing about those channels
    (a spatial attention map, a mask); a channel of its own there cannot go.
    """
    operands = [graph.labels(value) for value in call.tensors]
    shape = call.shape
    padded = [o.reshape([1] * (len(shape) - o.ndim) + list(o.shape)) for o in operands]
    speaking: list[Tensor] = []
    for index, operand in enumerate(padded):
        stretched = [d for d in range(len(shape)) if operand.shape[d] == 1 and shape[d] > 1]
        others = padded[:index] + padded[index + 1 :]
        if any(varies(other, d) for other in others for d in stretched if other.shape[d] > 1):
            graph.unions.freeze(operand, f"{call.place} spreads one channel over all others")
        else:
            speaking.append(operand.expand(shape))
    if not speaking:
        return torch.tensor(FIXED).expand(shape)
    if not call.mutates:  # a positional parameter has labels of its own at every position; go on with the others'
        speaking.sort(key=lambda operand: math.prod(n for n, s in zip(shape, operand.stride(), strict=True) if s))
    result = speaking[0]
    for operand in speaking[1:]:
        reason = f"{call.place} combines them with a tensor whose size is fixed"
        if call.mutates:
            graph.unions.freeze(operand[result == VOID], reason)
        if call.name in _SUMS and not call.has_parameter:
            graph.unions.mark_residual(result, operand)
        result = graph.unions.unite(result, operand, reason)
    return result


def movement(graph: LabelGraph, call: Call) -> Any:
    """Views, slices, concatenations, paddings …: torch itself moves the labels."""
    arguments = call.with_labels(graph.labels)
    if call.name == "constant_pad_nd" or (call.name == "pad" and call.get("mode") in {None, "constant"}):
        arguments["value"] = VOID
    try:
        moved = call.target(**arguments)
    except (NotImplementedError, RuntimeError):  # no integer kernel; labels are exact in float64
        doubles = {k: v.double() if isinstance(v, Tensor) else v for k, v in arguments.items()}
        moved = call.target(**doubles).long()
    return tighten(moved) if isinstance(moved, Tensor) else type(moved)(map(tighten, moved))


def same(graph: LabelGraph, call: Call) -> Tensor:
    """The output has the channels of the first tensor argument, element by element."""
    return graph.labels(call.tensors[0])


def convolution(graph: LabelGraph, call: Call) -> Any:
    """Plain, grouped and depthwise convolutions, 1-3d, also transposed."""
    transposed = "transpose" in call.name or bool(call.get("transposed"))
    if not graph.is_parameter(call["weight"]):
        pixels = call["input"].shape if transposed else call.shape
        graph.operation(call.layer, "conv", math.prod(pixels) * math.prod(call["weight"].shape[1:]), [])
        return unknown(graph, call, "a convolution whose weight is computed in forward")
    n_groups: int = call.get("groups") or 1
    weight = graph.axes(call["weight"])
    x = graph.labels(call["input"])
    dim = x.ndim - (len(weight) - 1)
    incoming = graph.unions.per_channel(x, dim, f"{call.place} reads positions as one channel")
    if transposed:
        reading, writing = weight[0], weight[1].repeat(n_groups)  # the weight names the outputs of one group
    else:
        reading, writing = weight[1], weight[0]
    depthwise = n_groups > 1 and n_groups == len(incoming)
    if depthwise and not transposed:
        graph.unions.unite(incoming.repeat_interleave(len(writing) // n_groups), writing, _fed(call))
    else:
        _tie_inputs(graph, incoming, reading, n_groups if not transposed else 1, call)
        _tie_groups(graph, incoming if transposed else writing, n_groups, call)
    if call.get("bias") is not None:
        _tie_parameter(graph, call["bias"], writing, call)
    if not depthwise:
        graph.reads(call["weight"], 0 if transposed else 1)
    out = call.shape
    positions = math.prod(x.shape[dim + 1 :]) if transposed else math.prod(out[dim + 1 :])
    kernel = math.prod(call["weight"].shape[2:])
    batch = math.prod(out[:dim])
    graph.operation(call.layer, "conv", batch * positions * kernel, [weight[0], weight[1]])
    graph.write(call.layer, writing, producer=not depthwise)
    return spread(writing, dim, out)


def linear(graph: LabelGraph, call: Call) -> Any:
    """`x @ weight.T + bias`, channels in the last dimension."""
    if not graph.is_parameter(call["weight"]):
        graph.operation(call.layer, "linear", math.prod(call.shape) * call["input"].shape[-1], [])
        return unknown(graph, call, "a linear layer whose weight is computed in forward")
    writing, reading = graph.axes(call["weight"])
    x = graph.labels(call["input"])
    incoming = graph.unions.per_channel(x, x.ndim - 1, f"{call.place} reads positions as one channel")
    graph.unions.unite(incoming, reading, _fed(call))
    if call.get("bias") is not None:
        _tie_parameter(graph, call["bias"], writing, call)
    graph.reads(call["weight"], 1)
    graph.operation(call.layer, "linear", math.prod(x.shape[:-1]), [writing, reading])
    graph.write(call.layer, writing, producer=True)
    return spread(writing, x.ndim - 1, call.shape)


def batch_norm(graph: LabelGraph, call: Call) -> Tensor:
    """One scale, shift, mean and variance per channel (dimension 1)."""
    x = graph.labels(call["input"])
    channel = graph.unions.per_channel(x, 1, f"{call.place} normalises positions as one channel")
    for name in ("weight", "bias", "running_mean", "running_var"):
        if call.get(name) is not None:
            _tie_parameter(graph, call[name], channel, call)
    return x


def pooling(graph: LabelGraph, call: Call) -> Any:
    """Pooling over the trailing dimensions; channels pass through."""
    x = graph.labels(call.tensors[0])
    spatial = int(re.findall(r"(\d)d", call.name)[0])
    dim = x.ndim - spatial - 1
    channel = graph.unions.per_channel(x, dim, f"{call.place} pools several channels into one")
    pooled = spread(channel, dim, call.shape)
    return pooled if isinstance(call.value, Tensor) else tuple(pooled for _ in call.value)  # with indices


def resampling(graph: LabelGraph, call: Call) -> Tensor:
    """Interpolation over the trailing dimensions of (N, C, …)."""
    x = graph.labels(call.tensors[0])
    channel = graph.unions.per_channel(x, 1, f"{call.place} mixes several channels")
    return spread(channel, 1, call.shape)


def reduction(graph: LabelGraph, call: Call) -> Any:
    """Means, sums and maxima over positions; a reduction over channels freezes them."""
    x = graph.labels(call.tensors[0])
    given = call.get("dim")
    dims = list(range(x.ndim)) if given is None or given == [] else ([given] if isinstance(given, int) else list(given))
    if any(varies(x, d) for d in dims):
        return unknown(graph, call, "a reduction over channels")
    reduced = x.amax(dims, keepdim=bool(call.get("keepdim")))
    return reduced if isinstance(call.value, Tensor) else tuple(reduced for _ in call.value)


def along_dim(graph: LabelGraph, call: Call) -> Any:
    """Softmax and its kin: fine along positions, freezing along channels."""
    x = graph.labels(call.tensors[0])
    if varies(x, int(call["dim"])):
        return unknown(graph, call, f"a {call.name} over channels")
    return x


def embedding(graph: LabelGraph, call: Call) -> Any:
    """A table lookup produces the channels of the table's second axis."""
    if not graph.is_parameter(call["weight"]):
        return unknown(graph, call, "an embedding whose table is computed in forward")
    writing = graph.axes(call["weight"])[1]
    graph.write(call.layer, writing, producer=True)
    return spread(writing, len(call.shape) - 1, call.shape)


def constant(graph: LabelGraph, call: Call) -> Tensor:
    """Tensors filled with one value say nothing about channels."""
    return torch.tensor(VOID).expand(call.shape)


def matrix_product(graph: LabelGraph, call: Call) -> Any:
    """Products of two activations keep their size; their multiply-adds count."""
    left = call.tensors[-2]
    products = _einsum_products(call) if call.name == "einsum" else math.prod(call.shape) * left.shape[-1]
    graph.operation(call.layer, "matmul", products, [])
    return unknown(graph, call, f"{call.name} of two activations has no rule")


def attention(graph: LabelGraph, call: Call) -> Any:
    """Fused attention keeps its size; the multiply-adds of its two products count."""
    queries, keys, values = (call[name].shape for name in ("query", "key", "value"))
    graph.operation(call.layer, "matmul", math.prod(queries[:-1]) * keys[-2] * (queries[-1] + values[-1]), [])
    return unknown(graph, call)


def recurrent(graph: LabelGraph, call: Call) -> Any:
    """Recurrent layers keep their size; each of their matrices multiplies every step of the sequence."""
    matrices = sum(math.prod(p.shape) for p in call["params"] if len(p.shape) == 2)
    graph.operation(call.layer, "matmul", math.prod(call["input"].shape[:-1]) * matrices, [])
    return unknown(graph, call)


def unknown(graph: LabelGraph, call: Call, why: str | None = None) -> Any:
    """Freeze whatever reaches the operator; its outputs cannot change size."""
    reason = f"{call.place}: {why or f'operator {call.target} has no rule'}"
    for value in call.tensors:
        graph.unions.freeze(graph.labels(value), reason)
    graph.give_up(call, reason)
    fixed = torch.tensor(FIXED)
    if isinstance(call.value, Tensor):
        return fixed.expand(call.value.shape)
    if isinstance(call.value, tuple | list):
        return [fixed.expand(v.shape) if isinstance(v, Tensor) else v for v in call.value]
    return call.value


def _tie_inputs(graph: LabelGraph, incoming: Channels, reading: Channels, n_groups: int, call: Call) -> None:
    """Each group of a convolution reads the same positions inside its slice: tie across groups."""
    rows = incoming.reshape(n_groups, -1)
    graph.unions.unite(rows, reading.expand(rows.shape), _fed(call))


def _tie_groups(graph: LabelGraph, channels: Channels, n_groups: int, call: Call) -> None:
    """Every group of a convolution must keep as many channels: position j of all groups is one channel."""
    rows = channels.reshape(n_groups, -1)
    graph.unions.unite(rows, rows[:1].expand(rows.shape), f"{call.place} is grouped")


def _tie_parameter(graph: LabelGraph, parameter: Any, channel: Channels, call: Call) -> None:
    if graph.is_parameter(parameter):
        graph.unions.unite(graph.axes(parameter)[0], channel, f"{call.place} has a fixed number of channels")
    else:
        graph.unions.unite(graph.labels(parameter), channel, f"{call.place} uses a computed parameter")


def _fed(call: Call) -> str:
    return f"{call.layer or call.place} reads them beside inputs of fixed size"


def _einsum_products(call: Call) -> int:
    inputs = str(call["equation"]).replace(" ", "").split("->")[0].split(",")
    sizes = {
        letter: size
        for letters, value in zip(inputs, call.tensors, strict=True)
        for letter, size in zip(letters, value.shape, strict=True)
    }
    return math.prod(sizes.values())


_SUMS = {"add", "add_", "sub", "sub_"}
_POINTWISE_WITHOUT_TAG = {"hardswish_", "hardswish", "hardtanh_", "relu6", "relu6_", "dropout", "dropout_", "selu_"}

_MOVEMENT = """view _unsafe_view reshape permute transpose t numpy_T unsqueeze squeeze flatten unflatten expand
expand_as slice select narrow split split_with_sizes chunk unbind cat concat concatenate stack constant_pad_nd pad
repeat tile repeat_interleave roll flip pixel_shuffle pixel_unshuffle channel_shuffle movedim moveaxis swapaxes
unfold view_as reshape_as reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d"""
_SAME = """dropout feature_dropout alpha_dropout feature_alpha_dropout contiguous clone detach detach_ alias to _to_copy
type_as lift_fresh lift_fresh_copy"""
_POOLING = """max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d
adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d"""

RULES: dict[str, Rule] = {
    **dict.fromkeys(_MOVEMENT.split(), movement),
    **dict.fromkeys(_SAME.split(), same),
    **dict.fromkeys(_POOLING.split(), pooling),
    **dict.fromkeys(["conv1d", "conv2d", "conv3d", "convolution"], convolution),
    **dict.fromkeys(["conv_transpose1d", "conv_transpose2d", "conv_transpose3d"], convolution),
    **dict.fromkeys(["mean", "sum", "amax", "amin", "max", "min", "var", "std", "logsumexp"], reduction),
    **dict.fromkeys(["softmax", "log_softmax", "cumsum", "cumprod"], along_dim),
    **dict.fromkeys(["upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d"], resampling),
    **dict.fromkeys(["zeros", "ones", "full", "zeros_like", "ones_like", "full_like", "new_zeros"], constant),
    **dict.fromkeys(["matmul", "mm", "bmm", "addmm", "baddbmm", "einsum"], matrix_product),
    **dict.fromkeys(["lstm", "gru", "rnn_tanh", "rnn_relu"], recurrent),
    "scaled_dot_product_attention": attention,
    "_assert_tensor_metadata": lambda graph, call: None,  # a check that the exporter adds
    "linear": linear,
    "batch_norm": batch_norm,
    "embedding": embedding,
}
"""Operator name (without namespace and overload) -> rule; whatever is missing is pointwise or unknown."""
