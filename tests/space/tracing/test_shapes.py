"""Values and calls of the graph: sizes against networks really traced that narrow, memory against real tensors."""

from __future__ import annotations

import json
from collections import Counter
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from attention_nets import Vision
from torch import Tensor, nn

from autoprune.config.space import SpaceOptions
from autoprune.space.cutting.slicing import random_ranking, slice_model
from autoprune.space.groups import SearchSpace, Widths
from autoprune.space.serial import from_json, to_json
from autoprune.space.tracing.program import Example, record
from autoprune.space.tracing.resize import operator_name
from autoprune.space.tracing.shapes import with_shapes
from autoprune.space.tracing.trace import Traced, trace
from autoprune.zoo import build_model

IMAGE = torch.zeros(1, 3, 16, 16)


def shaped(model: nn.Module, example: Example, **options: Any) -> tuple[SearchSpace, Traced]:
    traced = trace(model, example, options=SpaceOptions(**options))
    return with_shapes(traced.space, traced.program, model), traced


@cache
def zoo(name: str) -> tuple[nn.Module, SearchSpace]:
    model = build_model(name)
    return model, shaped(model, IMAGE)[0]


def at_random(space: SearchSpace, seed: int) -> Widths:
    rng = np.random.default_rng(seed)
    return tuple(int(rng.choice(group.choices)) for group in space.groups)


@pytest.mark.parametrize("name", ["resnet20", "mobilenetv2", "densenet40", "vgg16"])
@pytest.mark.parametrize("seed", [0, 1])
def test_sizes_are_those_of_the_network_traced_anew_at_these_widths(name: str, seed: int) -> None:
    model, space = zoo(name)
    widths = at_random(space, seed)
    again = record(slice_model(model, space, widths, random_ranking(space, np.random.default_rng(seed))), IMAGE)
    calls = [node for node in again.nodes if node.op == "call_function" and operator_name(node) != "getitem"]
    assert [call.operator for call in space.calls] == [operator_name(node) for node in calls]
    for call, node in zip(space.calls, calls, strict=True):
        assert [shape(space.activations[i].sizes, widths) for i in call.outputs] == list(node.meta["shapes"])
        weights = [n for n in node.all_input_nodes if n.name in again.tensors]
        assert [shape(weight, widths) for weight in call.weights] == [n.meta["shapes"][0] for n in weights]
        read = [n for n in node.all_input_nodes if n.name not in again.tensors]
        assert [shape(space.activations[i].sizes, widths) for i in dict.fromkeys(call.inputs)] == [
            n.meta["shapes"][0] for n in read
        ]


def shape(sizes: Any, widths: Widths) -> tuple[int, ...]:
    return tuple(size(widths) for size in sizes)


class Views(nn.Module):
    """Everything that shares memory, and some things that look as if they did."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.norm, self.head = nn.BatchNorm2d(8), nn.Linear(8 * 16, 10)
        self.dropout = nn.Dropout(0.5)
        self.scale = nn.Parameter(torch.ones(8, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(x)).relu_()
        turned = x.transpose(2, 3)
        x = x + turned.reshape(x.shape) + turned.contiguous()  # of these, reshape and contiguous copy
        one, other = self.dropout(x).chunk(2, dim=1)
        x = torch.cat([one, other], 1) * self.scale.squeeze(-1)[..., None]
        x += self.second(x)
        out: Tensor = self.head(F.adaptive_avg_pool2d(x, 4).flatten(1))
        return out


@pytest.mark.parametrize("tracer", ["torch.export", "make_fx"])
def test_views_and_writes_in_place_share_memory_as_real_tensors_do(
    tracer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if tracer == "make_fx":
        monkeypatch.setattr("autoprune.space.tracing.program._export", _refuse)
    model, example = Views().eval(), torch.randn(2, 3, 8, 8)
    space, traced = shaped(model, example)
    assert traced.program.tracer == tracer
    memory: dict[str, int] = {}
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    alive: list[Any] = []

    def note(name: str, made: Any) -> Any:
        alive.append(made)
        if isinstance(made, Tensor):
            memory[name] = made.untyped_storage().data_ptr()
        elif isinstance(made, list | tuple):
            memory.update({f"{name}.{i}": part.untyped_storage().data_ptr() for i, part in enumerate(made)})
        return made

    def place(node: Any, given: Any) -> Any:
        known = traced.program.tensors.get(node.name)
        return note(node.name, tensors[known[0]] if known else given)

    def call(node: Any, args: Any, kwargs: Any) -> Any:
        made = node.target(*args, **kwargs)
        return made if operator_name(node) == "getitem" else note(node.name, made)

    with torch.no_grad():
        traced.program.run(example, place, call)
    weights = {tensor.untyped_storage().data_ptr() for tensor in tensors.values()}
    for activation in space.activations:
        own = memory[activation.name]
        assert (activation.storage < 0) == (own in weights), activation.name
        if activation.storage >= 0:
            assert own == memory[space.activations[activation.storage].name], activation.name
    owners = [a for index, a in enumerate(space.activations) if a.storage == index]
    assert sorted(Counter(memory[a.name] for a in owners).values())[-1] == 1, [(a.name, memory[a.name]) for a in owners]


def _refuse(*_: Any) -> Any:
    raise NotImplementedError("not today")


class Passing(nn.Module):
    """Who holds what, line by line."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        y = self.b(x)
        x = self.c(
            F.relu(y)  # the statement ends two lines further down
        )
        return x.sum(1)


def test_values_are_held_by_the_calls_they_enter_and_by_variables_until_the_statement_ends() -> None:
    space, _ = shaped(Passing(), torch.zeros(2, 4))
    # a: 0 linear, 1 relu, 2 linear; b: 3, 4, 5; 6 relu; c: 7, 8, 9; 10 sum
    part = ["linear", "relu", "linear"]
    assert [call.operator for call in space.calls] == [*part, *part, "relu", *part, "sum"]
    last = {number: space.activations[call.outputs[0]].last for number, call in enumerate(space.calls)}
    assert last[0] == 1
    assert last[2] == 5, "x enters b and is held by its caller until b returns"
    assert last[5] == 9, "y is a variable; it is read in a statement that c ends"
    assert last[6] == 9, "so is what c is called with"
    assert last[9] == last[10] == 10
    assert space.activations[0].last == -1, "the caller's input is held throughout"


def test_layers_settings_dtypes_and_switches() -> None:
    model = build_model("resnet20")
    space, _ = shaped(model, IMAGE, blocks=True)
    first = space.calls[0]
    assert first.operator == "conv2d"
    assert first.layer == space.operations[0].layer
    assert dict(first.settings) == {"bias": None, "stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1}
    switched = {call.switch for call in space.calls}
    assert switched == {-1, *space.presence.blocks}
    for index, block in space.presence.blocks.items():
        layers = {call.layer for call in space.calls if call.switch == index}
        assert all(layer.startswith(block.name) for layer in layers)
    buffers = {t.name: t for t in space.tensors if t.kind == "buffer"}
    assert {name for name, _ in model.named_buffers()} == set(buffers)
    assert {t.dtype for name, t in buffers.items() if name.endswith("num_batches_tracked")} == {"int64"}
    for block in space.presence.blocks.values():
        assert sum(name.endswith("num_batches_tracked") for name in block.tensors) >= 2


def test_a_space_with_shapes_is_the_same_space_and_survives_json() -> None:
    model = build_model("resnet20")
    for options in ({}, {"blocks": True}):
        space, traced = shaped(model, IMAGE, **options)
        assert space.fingerprint == traced.space.fingerprint
        again = from_json(json.loads(json.dumps(to_json(space))))
        assert (again.activations, again.calls) == (space.activations, space.calls)
        assert [(t.name, t.shape, t.dtype) for t in again.tensors] == [
            (t.name, t.shape, t.dtype) for t in space.tensors
        ]


@pytest.mark.parametrize("version", [1, 2])
def test_older_space_files_are_read_and_lack_the_graph(version: int) -> None:
    data = to_json(zoo("resnet20")[1])
    old = {key: value for key, value in data.items() if key not in ("activations", "calls", "sizes")}
    for tensor in old["tensors"]:
        del tensor["dtype"]
    again = from_json({**json.loads(json.dumps(old)), "format": version})
    assert (again.activations, again.calls) == ((), ())
    assert again.groups == zoo("resnet20")[1].groups


def test_attention_values_follow_the_heads() -> None:
    space, _ = shaped(Vision(), torch.zeros(1, 3, 6, 6))
    call = next(call for call in space.calls if call.operator == "scaled_dot_product_attention")
    heads = {index for index, group in enumerate(space.groups) if group.kind == "heads"}
    sizes = space.activations[call.outputs[0]].sizes
    assert any(size.terms and size.terms[0][0] in heads and size.terms[0][1] == 1 for size in sizes)
