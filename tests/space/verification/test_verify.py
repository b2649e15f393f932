"""A space that is wrong never reaches a search: the wrong groups are frozen, or the space is refused."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from nets import Net, classify, conv, image
from torch import Tensor, nn

from autoprune.config.space import SpaceOptions
from autoprune.errors import SpaceError
from autoprune.space.cutting.graph_form import GraphNetwork
from autoprune.space.groups import AxisLayout, SearchSpace, WidthGroup
from autoprune.space.tracing.rules import RULES, OperatorRule
from autoprune.space.tracing.trace import trace
from autoprune.space.verification.verify import Verified, verify


def chain(*, step: Any = None) -> Net:
    def forward(n: Any, x: Tensor) -> Tensor:
        y = F.relu(n.a(x))
        return classify(n, F.relu(n.b(step(y) if step else y)))

    torch.manual_seed(0)
    return Net(forward, a=conv(3, 16), b=conv(16, 12), fc=nn.Linear(12, 5))


def traced(net: Net, **options: Any) -> SearchSpace:
    return trace(net, image(), options=SpaceOptions(**options)).space


def verified(net: Net, space: SearchSpace) -> Verified:
    """Verify a network with this space in place of the one that was found."""
    return verify(net, replace(trace(net, image()), space=space))


def with_axis(space: SearchSpace, tensor: str, dim: int, layout: AxisLayout | None) -> SearchSpace:
    """The same space with another layout of one axis of one tensor."""
    tensors = [
        replace(t, axes=(*t.axes[:dim], layout, *t.axes[dim + 1 :])) if t.name == tensor else t for t in space.tensors
    ]
    return replace(space, tensors=tuple(tensors))


def axis_of(space: SearchSpace, tensor: str, dim: int) -> AxisLayout:
    layout = next(t.axes[dim] for t in space.tensors if t.name == tensor)
    assert layout is not None
    return layout


def names(space: SearchSpace) -> list[str]:
    return [group.name for group in space.groups]


def reason(space: SearchSpace, layer: str) -> str:
    return next(part.reason for part in space.frozen if part.name == layer)


def test_a_right_space_comes_back_as_it_was() -> None:
    net = chain()
    space = traced(net)
    result = verified(net, space)
    assert (result.space.groups, result.space.frozen, result.space.form) == (space.groups, space.frozen, "module")
    assert result.space.operations == space.operations
    assert result.network is net
    assert result.largest_error < 1e-5


def test_a_consumer_that_reads_channels_in_another_order_is_caught() -> None:
    net = chain()
    space = traced(net)
    right = axis_of(space, "b.weight", 1)
    wrong = with_axis(space, "b.weight", 1, AxisLayout(right.group, right.channel[::-1].copy()))
    result = verified(net, wrong).space
    assert names(result) == ["b"]
    assert "differs" in reason(result, "a")


def test_an_operation_on_certain_channels_is_caught() -> None:
    """Which channels come first depends on what was cut: the module does not know, its graph does."""
    net = chain(step=lambda y: torch.cat([2 * y[:, :4], y[:, 4:]], 1))
    result = verified(net, traced(net))
    assert result.space.form == "graph"
    assert names(result.space) == ["a", "a#2", "b"]
    assert isinstance(result.network, GraphNetwork)


@pytest.mark.parametrize("tensor", ["a.weight", "a.bias"])
def test_a_tensor_forgotten_is_caught(tensor: str) -> None:
    net = chain()
    result = verified(net, with_axis(traced(net), tensor, 0, None)).space
    assert names(result) == ["b"]
    assert reason(result, "a")


def test_residual_partners_that_were_not_tied_are_caught() -> None:
    torch.manual_seed(0)
    net = Net(lambda n, x: classify(n, F.relu(n.a(x) + n.b(x))), a=conv(3, 16), b=conv(3, 16), fc=nn.Linear(16, 5))
    space = traced(net)
    own = AxisLayout(np.ones(16, dtype=np.int64), np.arange(16))
    untied = replace(space, groups=(*space.groups, WidthGroup("b", 16, tuple(range(1, 17)), ("b",))))
    for name in ("b.weight", "b.bias"):
        untied = with_axis(untied, name, 0, own)
    with pytest.raises(SpaceError, match="nothing in this model can be pruned"):
        verified(net, untied)


@pytest.mark.parametrize("ratio", [0.5, 0.75])
def test_groups_that_fit_only_while_they_are_cut_alike_are_caught(ratio: float) -> None:
    """With one choice besides the full width, every cut of all groups at once keeps both halves equal."""

    def forward(n: Any, x: Tensor) -> Tensor:
        one, other = F.relu(n.a(x)).chunk(2, 1)
        return classify(n, n.b(one) + n.c(other))

    net = Net(forward, a=conv(3, 16), b=conv(8, 6), c=conv(8, 6), fc=nn.Linear(6, 5))
    assert verified(net, traced(net, ratios=(ratio,))).space.form == "graph"


@pytest.mark.parametrize("least", [3, 16])
def test_a_module_that_refuses_narrow_maps_runs_as_a_graph(least: int) -> None:
    def step(y: Tensor) -> Tensor:
        assert y.shape[1] >= least, "too narrow"
        return y

    net = chain(step=step)
    result = verified(net, traced(net, min_ratio=0.1))
    assert result.space.form == "graph"
    assert names(result.space) == ["a", "b"]


@torch.library.custom_op("autoprune_tests::at_least_three", mutates_args=())
def at_least_three(x: Tensor) -> Tensor:
    if x.shape[1] < 3:
        raise RuntimeError("too narrow" if x.shape[1] == 2 else "")
    return x.clone()


@at_least_three.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


@pytest.mark.parametrize(
    ("ratio", "told"), [(2 / 16, "does not run: RuntimeError: too narrow"), (1 / 16, "RuntimeError")]
)
def test_a_group_that_no_form_can_cut_is_frozen_with_the_reason(
    ratio: float, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RULES, "at_least_three", OperatorRule(lambda graph, call: graph.labels(call.tensors[0])))
    net = chain(step=at_least_three)
    result = verified(net, traced(net, ratios=(ratio,), min_ratio=0.01)).space
    assert names(result) == ["b"]
    assert told in reason(result, "a")


def test_a_frozen_part_says_what_is_wrong_in_either_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RULES, "at_least_three", OperatorRule(lambda graph, call: graph.labels(call.tensors[0])))
    net = chain(step=lambda y: at_least_three(y) if y.sum() < 1e9 else y)
    told = reason(verified(net, traced(net, ratios=(2 / 16,), min_ratio=0.01)).space, "a")
    assert "does not run: RuntimeError: too narrow (nor as its traced graph: its forward decides by values" in told
    net = chain(step=at_least_three)
    told = reason(verified(net, traced(net, ratios=(2 / 16,), min_ratio=0.01)).space, "a")
    assert told.startswith("as its traced graph, ")
    assert "; in its own class, " in told


def test_a_wrong_rule_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """`flip` in the graph, but the rule says that nothing moves."""
    monkeypatch.setitem(RULES, "flip", OperatorRule(lambda graph, call: graph.labels(call.tensors[0])))
    net = chain(step=lambda y: y.flip(1))
    result = verified(net, traced(net)).space
    assert names(result) == ["b"]
    assert "differs" in reason(result, "a")


def test_a_wrong_coefficient_is_refused() -> None:
    net = chain()
    space = traced(net)
    for index, operation in enumerate(space.operations):
        wrong = list(space.operations)
        wrong[index] = replace(operation, coefficient=operation.coefficient + 1)
        with pytest.raises(SpaceError, match="a budget cannot be kept on a wrong count"):
            verified(net, replace(space, operations=tuple(wrong)))


def test_a_forgotten_operation_is_refused() -> None:
    net = chain()
    space = traced(net)
    for index in range(len(space.operations)):
        left = (*space.operations[:index], *space.operations[index + 1 :])
        with pytest.raises(SpaceError, match="a budget cannot be kept"):
            verified(net, replace(space, operations=left))


def test_torch_counts_where_fvcore_takes_a_matrix_by_a_batch_for_one_product() -> None:
    """As the steps of Mamba: fvcore leaves the batch out."""

    def forward(n: Any, x: Tensor) -> Tensor:
        y = F.relu(n.a(x)).flatten(2)
        return n.fc((n.b.weight @ y).mean(-1))  # type: ignore[no-any-return]

    net = Net(forward, a=conv(3, 16), b=nn.Linear(16, 12, bias=False), fc=nn.Linear(12, 5))
    space = verify(net, trace(net, image())).space
    assert {group.width for group in space.groups} == {16, 12}
    pixels = math.prod(image().shape[2:]) * len(image())
    products = [op.coefficient * math.prod(size(space.full) for size in op.sizes) for op in space.operations]
    assert sorted(products) == sorted([16 * 27 * pixels, 12 * 16 * pixels, 12 * 5 * len(image())])


def test_a_network_that_is_random_in_evaluation_mode_is_refused() -> None:
    net = chain(step=lambda y: y * random.random())
    space = traced(net)
    with pytest.raises(SpaceError, match="two different outputs for the same input"):
        verified(net, space)


def test_a_masked_output_at_minus_infinity_is_told_as_what_it_is() -> None:
    def forward(n: Any, x: Tensor) -> Tensor:
        logits: Tensor = classify(n, F.relu(n.b(F.relu(n.a(x)))))
        return logits.masked_fill(torch.tensor([False] * 4 + [True]), -math.inf)

    torch.manual_seed(0)
    net = Net(forward, a=conv(3, 16), b=conv(16, 12), fc=nn.Linear(12, 5))
    with pytest.raises(SpaceError, match=r"gives infinity or NaN for the example input.*-1e4"):
        verified(net, traced(net))


def test_an_input_to_which_the_network_does_not_respond_is_refused() -> None:
    torch.manual_seed(0)
    net = Net(lambda n, x: classify(n, n.a(x)) * 0 + 1, a=conv(3, 16), fc=nn.Linear(16, 5))
    with pytest.raises(SpaceError, match="do not change when channels are cut"):
        verified(net, traced(net))


class Chaotic(nn.Module):
    """Rounding errors of the hidden sum grow by a factor of a million."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.inner, self.head = nn.Linear(32, 256), nn.Linear(256, 64), nn.Linear(64, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.sin(1e6 * self.inner(torch.relu(self.hidden(x)))))


def test_rounding_errors_that_a_network_blows_up_freeze_nothing() -> None:
    torch.manual_seed(0)
    model = Chaotic()
    verified = verify(model, trace(model, torch.randn(2, 32)))
    assert verified.space.form == "module"
    assert {group.name for group in verified.space.groups} == {"hidden", "inner"}
    assert verified.largest_error < 1e-4
