from __future__ import annotations

import habits_of_data  # noqa: F401 - adds its habits to the table
import habits_of_layers  # noqa: F401
import habits_of_positions  # noqa: F401
import numpy as np
import pytest
import torch
from habits import HABITS
from nets import Net, classify, conv, image, parameter
from torch import Tensor, nn

from autoprune.cost import METRICS
from autoprune.errors import SpaceError
from autoprune.space.groups import SearchSpace
from autoprune.space.tracing.trace import trace
from autoprune.space.verification.verify import verify
from autoprune.testing.rules import RuleContract, tried


def verified(name: str) -> SearchSpace:
    return tried(HABITS[name]).space


class TestHabits(RuleContract):
    cases = HABITS


@pytest.mark.parametrize(
    ("name", "by_hand"),
    [
        ("fused_attention", 2 * 4 * (7 * 16) + 2 * 2 * (4 * 4 * 16) + 2 * 4 * (16 * 8 + 8 * 5)),
        ("recurrent_layer", 8 * (7 * 16) + 8 * 4 * 6 * (16 + 6) + 8 * (6 * 8 + 8 * 5)),
        ("batched_product", 8 * (7 * 16) + 2 * 4 * 4 * 16 + 8 * (4 * 8 + 8 * 5)),
    ],
)
def test_what_fvcore_does_not_know_is_counted_by_hand(name: str, by_hand: int) -> None:
    space = verified(name)
    assert METRICS.get("flops")(space)(np.array([space.full]))[0] == by_hand


@pytest.mark.parametrize("name", ["residual_sum", "difference_in_place", "two_inputs", "layer_scale"])
def test_channels_that_several_layers_write_are_residual(name: str) -> None:
    (group,) = verified(name).groups
    assert group.residual
    assert group.members == ("a", "b")


@pytest.mark.parametrize(
    "name", ["concat_of_concats", "squeeze_and_excitation", "positional_parameter", "choice_by_where"]
)
def test_channels_of_other_nets_are_not_residual(name: str) -> None:
    assert not any(group.residual for group in verified(name).groups)


def test_a_flattened_map_has_one_column_per_position_in_the_next_layer() -> None:
    space = verified("flatten_before_linear")
    (linear,) = (op for op in space.operations if op.kind == "linear")
    assert sorted(size.terms for size in linear.sizes) == [(), ((0, 36),)]


def test_a_model_that_cannot_be_pruned_at_all_is_refused_with_the_reason() -> None:
    net = Net(lambda n, x: n.a(x), a=conv(3, 16))
    with pytest.raises(SpaceError, match=r"nothing in this model can be pruned \(a: the model's output\)"):
        verify(net, trace(net, image()))


def test_a_weight_used_in_two_ways_stays_whole() -> None:
    def forward(n: Net, x: Tensor) -> Tensor:
        return classify(n, n.a(x) * n.a.weight[:, 0, :1, :1])  # type: ignore[union-attr, operator, index]

    net = Net(forward, a=conv(3, 16), fc=nn.Linear(16, 5))
    assert {p.name: p.reason for p in trace(net, image()).space.frozen}[
        "a"
    ] == "mul in the model: weights of different shapes"


def test_a_parameter_with_channels_along_two_axes_stays_whole() -> None:
    net = Net(
        lambda n, x: n.fc(n.a(x) * n.grid.flatten()), a=nn.Linear(7, 16), grid=parameter(4, 4), fc=nn.Linear(16, 5)
    )
    reasons = {part.name: part.reason for part in trace(net, torch.randn(2, 7)).space.frozen}
    assert reasons["a"] == "grid has channels along two axes at once"
