"""A model that cannot be traced is refused with the line of its forward and what to change."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from nets import Net, classify, conv, image
from torch import Tensor, nn

import autoprune
from autoprune.errors import SpaceError, TraceError
from autoprune.space.tracing.program import Example
from autoprune.space.tracing.trace import trace


def net(forward: Callable[..., Any]) -> Net:
    return Net(forward, a=conv(3, 16), fc=nn.Linear(16, 5))


def refused(forward: Callable[..., Any], example: Example | None = None) -> str:
    with pytest.raises(TraceError) as caught:
        trace(net(forward), image() if example is None else example)
    return str(caught.value)


def chosen_by_a_value(n: Any, x: Tensor) -> Tensor:
    y = n.a(x)
    if y.sum() > 0:
        y = y * 2
    return classify(n, y)


def reads_a_value(n: Any, x: Tensor) -> Tensor:
    y = n.a(x)
    scale = y.mean().item()
    return classify(n, y * scale)


def wrong_shape(n: Any, x: Tensor) -> Tensor:
    return n.fc(n.a(x))  # type: ignore[no-any-return]


def test_a_branch_on_a_value_is_traced_by_make_fx_as_the_example_takes_it() -> None:
    traced = trace(net(chosen_by_a_value), image())
    assert traced.program.tracer == "make_fx"
    assert {group.name: group.width for group in traced.space.groups} == {"a": 16}


def test_a_forward_that_does_not_run_is_refused_with_its_line_and_code() -> None:
    message = refused(wrong_shape)
    line = inspect.getsourcelines(wrong_shape)[1] + 1
    assert f"test_refusal.py:{line}, in wrong_shape: `return n.fc(n.a(x))" in message
    assert "Net cannot be traced with this example input ((2, 3, 6, 6) torch.float32)" in message
    assert "Check that model(example_input) runs" in message


def test_what_each_tracer_said_is_told() -> None:
    message = refused(wrong_shape)
    assert "torch.export: RuntimeError" in message or "make_fx: RuntimeError" in message


def test_a_value_read_from_a_tensor_stays_a_value_of_the_graph() -> None:
    """The exporter keeps `.item()`; what depends on it must not be baked in."""
    traced = trace(net(reads_a_value), image())
    assert traced.program.tracer == "torch.export"
    assert any("item" in str(node.target) for node in traced.program.nodes)


def test_an_object_of_its_own_in_forward_is_refused() -> None:
    """A generator is no tensor that a graph could hold."""

    def draws(n: Any, x: Tensor) -> Tensor:
        return classify(n, n.a(x) + torch.rand(1, generator=torch.Generator().manual_seed(0)))

    assert "cannot be traced" in refused(draws)


def test_errors_of_the_user_keep_their_message() -> None:
    def complains(n: Any, x: Tensor) -> Tensor:
        raise ValueError("images must have 4 channels")

    assert "ValueError: images must have 4 channels" in refused(complains)


@pytest.mark.parametrize(
    ("example", "told"),
    [
        ((image(), torch.ones(2, dtype=torch.long)), r"\(2, 3, 6, 6\) torch.float32, \(2,\) torch.int64"),
        ({"x": image(), "flag": True}, r"x=\(2, 3, 6, 6\) torch.float32, flag=bool"),
    ],
)
def test_the_inputs_are_described(example: Example, told: str) -> None:
    class Complains(nn.Module):
        def forward(self, *args: Any, **kwargs: Any) -> Tensor:
            raise ValueError("no")

    with pytest.raises(TraceError, match=told):
        trace(Complains(), example)


def test_a_refused_model_stays_as_it_was() -> None:
    model = net(wrong_shape).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(TraceError):
        trace(model, image())
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def kept_by_a_hook() -> nn.Module:
    model = net(lambda n, x: classify(n, n.a(x)))
    model.features = {}
    model.a.register_forward_hook(lambda module, inputs, output: model.features.update(a=output))
    model(image())
    return model


def gated_by_a_closure() -> nn.Module:
    model, gate = net(lambda n, x: classify(n, n.a(x))), nn.Parameter(torch.rand(16))
    model.a.register_forward_hook(lambda module, inputs, output: output * gate.view(-1, 1, 1))
    return model


def with_a_plain_list() -> nn.Module:
    model = net(lambda n, x: classify(n, n.a(x) * n.gates[0]))
    model.gates = [nn.Parameter(torch.rand(16, 1, 1))]
    return model


def shaped_by_a_hook() -> nn.Module:
    """Its weight is made of a matrix."""
    layer = conv(3, 16)
    layer.register_parameter("weight_orig", nn.Parameter(layer._parameters.pop("weight").detach().flatten(1)))
    layer.weight = layer.weight_orig.view(16, 3, 3, 3)
    return nn.Sequential(layer, nn.Conv2d(16, 5, 1))


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (kept_by_a_hook, r"cannot be copied: features\['a'\] holds .* hook or forward keeps; clear it before"),
        (
            shaped_by_a_hook,
            r"copied: 0\.weight holds .* in another shape; make it a parametrization .*register_parametrization",
        ),
        (
            gated_by_a_closure,
            r"of shape \(16,\) \(test_refusal.py:\d+, in <lambda>: .* none of the model's own",
        ),
        (with_a_plain_list, r"parameter of shape \(16, 1, 1\) .* nn.ParameterList"),
        (lambda: torch.compile(kept_by_a_hook(), backend="eager"), "result of torch.compile.*give model._orig_mod"),
        (lambda: nn.DataParallel(nn.Conv2d(3, 8, 1)), "wrapped for several GPUs.*give model.module"),
        (lambda: torch.jit.trace(nn.Conv2d(3, 8, 1), image()), "is a TorchScript module"),
    ],
)
def test_what_is_in_the_way_is_named_with_the_way_out(build: Callable[[], nn.Module], told: str) -> None:
    with pytest.raises(TraceError, match=told):
        trace(build(), image())


@pytest.mark.parametrize("what", ["its 0.weight", "the example input"])
def test_what_has_no_values_is_priced_but_not_verified(what: str) -> None:
    model = nn.Sequential(conv(3, 16), nn.ReLU(), conv(16, 5))
    model, example = (model.to("meta") if "weight" in what else model), image().to("meta")
    if "weight" in what:
        assert autoprune.trace(model, example, verify=False).groups
    with pytest.raises(SpaceError, match=f"{what} is on the meta device .* or verify=False"):
        autoprune.trace(model, example)
