"""A model is sound where its numbers are numbers, and unchanged where nothing of it is another."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from autoprune.errors import ConfigError, EvaluationError, RunError
from autoprune.training.integrity import Snapshot, check_finite


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4, 2))


def fill(name: str, value: float, place: tuple[int, ...]) -> Callable[[nn.Module], None]:
    def change(model: nn.Module) -> None:
        model.state_dict()[name][place] = value

    return change


@pytest.mark.parametrize(
    ("name", "value", "place"),
    [
        ("0.weight", torch.nan, (2, 0, 1, 1)),
        ("0.bias", torch.inf, (3,)),
        ("4.weight", -torch.inf, (1, 2)),
        ("1.weight", torch.nan, (0,)),
        ("1.running_mean", torch.nan, (1,)),
        ("1.running_var", torch.inf, (1,)),
        ("1.running_var", -1.0, (2,)),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_the_first_value_that_is_no_number_is_named(
    name: str, value: float, place: tuple[int, ...], dtype: torch.dtype
) -> None:
    model = network().to(dtype)
    check_finite(model)
    fill(name, value, place)(model)
    with pytest.raises(ConfigError) as caught:
        check_finite(model)
    shown = f"{float(value)}" if value == value else "nan"
    assert f"1 of {model.state_dict()[name].numel()} in '{name}', the first at {place} is {shown}" in str(caught.value)
    with pytest.raises(EvaluationError, match=r"^the winner holds .*; train it$"):
        check_finite(model, what="the winner", kind=EvaluationError, then="train it")


def test_what_need_not_be_a_number_may_be_none() -> None:
    model = network()
    model.register_buffer("mask", torch.full((4,), -torch.inf))
    model.register_buffer("cache", torch.full((4,), torch.nan))
    model.held = nn.Parameter(torch.tensor([0.0, -torch.inf]), requires_grad=False)
    model.large = nn.Parameter(torch.full((9,), 3e38))  # their sum is infinite
    model.lazy = nn.LazyLinear(3)
    model.elsewhere = nn.Linear(2, 2, device="meta")
    check_finite(model)
    model.held.data[0] = torch.inf
    with pytest.raises(ConfigError, match="held"):
        check_finite(model)


CHANGES: dict[str, Callable[[nn.Sequential], object]] = {
    "parameter '0.weight'": lambda m: m[0].weight.data.mul_(0.5),
    "parameter '0.bias'": lambda m: m[0].bias.data.copy_(m[0].bias.data.flip(0)),
    "parameter '4.bias'": lambda m: m[4].bias.data.numpy().fill(7),
    "buffer '1.running_mean'": lambda m: m.train()(torch.ones(2, 1, 3, 3)),
    "the training flag of '1'": lambda m: m[1].eval(),
    "requires_grad of '4.weight'": lambda m: m[4].weight.requires_grad_(False),
    "the hooks of '2'": lambda m: m[2].register_forward_hook(lambda *_: None),
    "parameter '5.weight'": lambda m: m.append(nn.Linear(2, 2)),
    "buffer '1.running_var'": lambda m: m[1].register_buffer("running_var", None),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_snapshot_names_the_first_thing_that_is_another(name: str) -> None:
    model = network()
    nn.init.normal_(model[1].running_var).abs_()
    snapshot = Snapshot(model)
    snapshot.check("reading changed it", "do not")
    CHANGES[name](model)
    assert snapshot.changed() == name
    with pytest.raises(RunError, match=f"^the test changed it: {name} is not as it was; do not$"):
        snapshot.check("the test changed it", "do not")


def test_reading_and_running_a_copy_change_nothing() -> None:
    model = network()
    snapshot = Snapshot(model)
    model.eval()(torch.ones(2, 1, 3, 3))
    model.train()
    assert snapshot.changed() is None
