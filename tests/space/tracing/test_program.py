"""The graph of a model: what it holds, and that running it is running the model."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from nets import Net, classify, conv, image, parameter
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from autoprune.space.cutting.slicing import tensor_of
from autoprune.space.tracing.program import Example, Program, call_arguments, record, run_model


def run(program: Program, model: nn.Module, example: Example) -> Any:
    """Execute the graph with the model's tensors."""

    def place(node: fx.Node, given: Any) -> Any:
        known = program.tensors.get(node.name)
        return tensor_of(model, known[0]) if known else given

    with torch.no_grad():
        return program.run(example, place, lambda node, args, kwargs: node.target(*args, **kwargs))  # type: ignore[operator]


def branch(n: Any, x: Tensor) -> Tensor:
    y = n.a(x)
    return classify(n, y * 2 if y.sum() > 0 else y)


def structured(n: Any, x: Tensor) -> dict[str, Any]:
    y = n.a(x)
    return {"maps": y, "logits": [classify(n, y), None], "number": 3}


def in_autocast(n: Any, x: Tensor) -> Tensor:
    y = n.a(x)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=False):
        y = torch.exp(-y.float())
    with torch.no_grad():
        z = y.mean((2, 3), keepdim=True)
    return classify(n, y + z)


def with_constants(n: Any, x: Tensor) -> Tensor:
    y = n.a(x) * n.k + torch.tensor([0.5, 2.0]).sum()
    return classify(n, y + n.p)


def drops_a_value(n: Any, x: Tensor) -> Tensor:
    n.fc(x.new_zeros(1, 16)).sum()
    return classify(n, n.a(x))


FORWARDS: dict[str, tuple[Callable[..., Any], str]] = {
    "branch": (branch, "make_fx"),
    "structured": (structured, "torch.export"),
    "in_autocast": (in_autocast, "torch.export"),
    "with_constants": (with_constants, "torch.export"),
    "drops_a_value": (drops_a_value, "torch.export"),
}


def net(name: str) -> Net:
    torch.manual_seed(0)
    parts = {"k": torch.rand(1, 16, 1, 1), "p": parameter(1, 16, 1, 1), "bn": nn.BatchNorm2d(16)}
    return Net(FORWARDS[name][0], a=conv(3, 16), fc=nn.Linear(16, 5), **parts).eval()


@pytest.mark.parametrize("name", FORWARDS)
def test_running_the_graph_is_running_the_model(name: str) -> None:
    model = net(name)
    program = record(model, image())
    assert program.tracer == FORWARDS[name][1]
    found, expected = run(program, model, image()), run_model(model, image())
    assert pytree.tree_structure(found) == pytree.tree_structure(expected)
    for one, other in zip(pytree.tree_leaves(found), pytree.tree_leaves(expected), strict=True):
        assert torch.allclose(one, other, atol=1e-6) if isinstance(one, Tensor) else one == other


@pytest.mark.parametrize("name", FORWARDS)
def test_a_graph_is_flat_and_without_what_nobody_reads(name: str) -> None:
    program = record(net(name), image())
    for node in program.nodes:
        assert node.op in ("placeholder", "call_function", "output")
        assert node.op != "call_function" or node.users
        assert not isinstance(node.target, torch._ops.HigherOrderOperator)


@pytest.mark.parametrize("name", FORWARDS)
def test_the_same_code_has_the_same_fingerprint_and_another_one_has_not(name: str) -> None:
    prints = {other: record(net(other), image()).fingerprint for other in (name, "structured", "branch")}
    assert record(net(name), image()).fingerprint == prints[name]
    assert len(set(prints.values())) == len(prints)


def test_inputs_keep_their_order_whatever_the_caller_uses() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = conv(3, 8), conv(3, 8)

        def forward(self, x: Tensor, *, pair: tuple[Tensor, dict[str, Tensor]], times: float = 1.0) -> Tensor:
            return self.a(x) * times - self.b(pair[0]) / pair[1]["z"]  # type: ignore[no-any-return]

    model = Two()
    example = {"pair": (image() + 1, {"z": torch.full((1,), 3.0)}), "x": image()}
    program = record(model, example)
    assert torch.allclose(run(program, model, example), run_model(model, example), atol=1e-6)


def test_examples_are_one_tensor_positions_or_names() -> None:
    x = image()
    assert call_arguments(x) == ((x,), {})
    assert call_arguments((x, 3)) == ((x, 3), {})
    assert call_arguments({"x": x}) == ((), {"x": x})


def test_tied_tensors_have_one_name_each_way() -> None:
    """What the graph reads under one name can be found in the model."""
    table, last = nn.Embedding(9, 16), nn.Linear(16, 9, bias=False)
    last.weight = table.weight
    model = Net(lambda n, x: n.last(n.table(x)), table=table, last=last)
    tokens = torch.tensor([[1, 2, 3]])
    program = record(model, tokens)
    assert torch.allclose(run(program, model, tokens), run_model(model, tokens))


def test_dropout_and_batch_norm_are_recorded_in_evaluation_mode_whatever_the_flags() -> None:
    model = Net(
        lambda n, x: classify(n, F.dropout(n.bn(n.a(x)), 0.5, n.training)),
        a=conv(3, 16), bn=nn.BatchNorm2d(16), fc=nn.Linear(16, 5),
    ).train()  # fmt: skip
    mean = model.bn.running_mean.clone()  # type: ignore[union-attr, operator]
    program = record(model, image())
    assert all(m.training for m in model.modules())
    assert torch.equal(model.bn.running_mean, mean)  # type: ignore[union-attr, arg-type]
    model.eval()
    assert torch.allclose(run(program, model, image()), run_model(model, image()), atol=1e-6)


def test_logging_and_the_fast_path_of_attention_are_as_before() -> None:
    before = logging.root.manager.disable, torch.backends.mha.get_fastpath_enabled()
    record(net("branch"), image())
    assert (logging.root.manager.disable, torch.backends.mha.get_fastpath_enabled()) == before


def test_values_are_let_go_after_their_last_reader() -> None:
    program = record(net("in_autocast"), image())
    order = {node: index for index, node in enumerate(program.nodes)}
    for reader, values in program.last_use.items():
        for value in values:
            assert max(order[user] for user in value.users) == order[reader]
