"""LSTM, GRU and plain recurrent layers: the hidden width, one for all layers and directions of a module."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from autoprune.space.tracing.calls import Call, Channels, LabelGraph, WeightLabels
from autoprune.space.tracing.labels import FIXED, spread
from autoprune.space.tracing.resize import Arguments, Sized
from autoprune.space.tracing.rules.base import fed, tie_parameter, unknown

_GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


def recurrent(graph: LabelGraph, call: Call) -> Any:
    """Gates of one unit go together; torch's modules have one hidden size, so all layers and directions are tied.

    A packed sequence has its steps of all samples along one dimension; a projection of the hidden state (`proj_size`)
    has no rule.
    """
    gates, params = _GATES[call.name], call.get("params")
    given = call.arguments.get("input", call.get("data"))
    directions = 2 if call.get("bidirectional") else 1
    per_cell = (4 if call["has_biases"] else 2) if params else 0
    steps = math.prod(given.shape[:-1]) if params else 0
    simple = params and all(graph.is_weight(p) for p in params)
    if not simple or len(params) != per_cell * directions * int(call["num_layers"]):
        matrices = sum(math.prod(p.shape) for p in params or () if len(p.shape) == 2)
        graph.operation(call.layer, "unseen", steps * matrices, [])
        computed = not all(graph.is_weight(p) for p in params or ())
        return unknown(graph, call, "weights computed in forward" if computed else "projections of the hidden state")
    layer = call.layer if isinstance(params[0], WeightLabels) else params[0].name.rpartition(".")[0]
    hidden = graph.axes_of(params[1])[1]
    x = graph.labels(given)
    incoming = graph.unions.per_channel(x, x.ndim - 1, f"{call.place} reads positions as one channel")
    for start in range(0, len(params), per_cell * directions):
        for cell in range(start, start + per_cell * directions, per_cell):
            _tie_cell(graph, call, params[cell : cell + per_cell], incoming, hidden, gates)
            for matrix in params[cell : cell + 2]:
                graph.operation(layer, "unseen", steps, graph.axes_of(matrix))
        incoming = hidden.repeat(directions)
    graph.write(layer, hidden, producer=True, positions=steps)
    states = call["hx"] if isinstance(call["hx"], list | tuple) else [call["hx"]]
    for state in states:
        labels = graph.labels(state)
        vector = graph.unions.per_channel(labels, labels.ndim - 1, fed(call))
        graph.unions.unite(vector, hidden, fed(call))
    values: tuple[Tensor, ...] = tuple(call.value)
    outputs = spread(incoming, values[0].ndim - 1, values[0].shape)
    return [outputs, *(spread(hidden, v.ndim - 1, v.shape) for v in values[1:])]


def packing(graph: LabelGraph, call: Call) -> Any:
    """Sequences packed one after the other, or padded again: channels stay in the last dimension."""
    x = graph.labels(call.tensors[0])
    channel = graph.unions.per_channel(x, x.ndim - 1, f"{call.place} reads positions as one channel")
    values, sizes = call.value
    return [spread(channel, values.ndim - 1, values.shape), torch.tensor(FIXED).expand(sizes.shape)]


def recurrent_cell(graph: LabelGraph, call: Call) -> Any:
    """One step of an LSTM, GRU or plain cell."""
    params = [call[name] for name in ("w_ih", "w_hh", "b_ih", "b_hh") if call.get(name) is not None]
    if not all(graph.is_weight(p) for p in params):
        return unknown(graph, call, "a cell whose weights are computed in forward")
    layer = call.layer if isinstance(params[0], WeightLabels) else params[0].name.rpartition(".")[0]
    hidden = graph.axes_of(params[1])[1]
    x = graph.labels(call["input"])
    incoming = graph.unions.per_channel(x, x.ndim - 1, f"{call.place} reads positions as one channel")
    gates = params[0].shape[0] // len(hidden)
    _tie_cell(graph, call, params, incoming, hidden, gates)
    rows = math.prod(x.shape[:-1])
    for matrix in params[:2]:
        graph.operation(layer, "linear", rows, graph.axes_of(matrix))  # fvcore sees cells as linear layers
    graph.write(layer, hidden, producer=True, positions=rows)
    for state in call["hx"] if isinstance(call["hx"], list | tuple) else [call["hx"]]:
        labels = graph.labels(state)
        vector = graph.unions.per_channel(labels, labels.ndim - 1, fed(call))
        graph.unions.unite(vector, hidden, fed(call))
    values = [call.value] if isinstance(call.value, Tensor) else list(call.value)
    made = [spread(hidden, v.ndim - 1, v.shape) for v in values]
    return made[0] if isinstance(call.value, Tensor) else made


def _tie_cell(
    graph: LabelGraph, call: Call, params: list[Any], incoming: Channels, hidden: Channels, gates: int
) -> None:
    from_input, from_hidden, *biases = params
    graph.unions.unite(graph.axes_of(from_input)[1], incoming, fed(call))
    graph.unions.unite(graph.axes_of(from_hidden)[1], hidden, fed(call))
    graph.reads(from_input, 1)
    graph.reads(from_hidden, 1)
    for matrix in (from_input, from_hidden):
        graph.unions.unite(graph.axes_of(matrix)[0], hidden.repeat(gates), fed(call))
    for bias in biases:
        tie_parameter(graph, bias, hidden.repeat(gates), call)


def resize_states(call: Sized) -> Arguments:
    """Initial states of zeros keep the traced size: nothing in the graph ties them to the hidden width."""
    weight: Tensor = call.arguments["params"][1] if "params" in call.arguments else call.arguments["w_hh"]
    given = call.arguments["hx"]
    many = given if isinstance(given, list | tuple) else [given]
    states = [state[..., : weight.shape[1]].contiguous().to(weight.dtype) for state in many]
    return call.arguments | {"hx": states if isinstance(given, list | tuple) else states[0]}
