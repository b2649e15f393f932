"""In graph form a network trains as the model does: outputs, gradients and buffers of a step, with one seed."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from nets import conv, image
from torch import Tensor, nn
from training_nets import CANNOT_BE_REBUILT, NETS, DropPath, Hidden, Statistics, baked

from autoprune.config.space import SpaceOptions
from autoprune.errors import SpaceError
from autoprune.space.cutting import graph_form
from autoprune.space.cutting.graph_form import GraphNetwork, graph_network
from autoprune.space.cutting.slicing import random_ranking, slice_model
from autoprune.space.cutting.training_form import TrainingForm
from autoprune.space.origin import full_network, in_form, origin_of
from autoprune.space.tracing import flatten
from autoprune.space.tracing.trace import trace
from autoprune.space.verification import training_check
from autoprune.space.verification.verify import Verified, verify

FUNCTIONS = ["gradient reversal", "straight-through", "quantised weight", "written in place", "two outputs"]
RANDOM = [
    *["dropout", "dropout in place", "functional dropout", "channel dropout", "alpha dropout", "feature alpha dropout"],
    *["random relu", "stochastic depth", "lstm", "gru", "attention", "attention with weights", "scaled dot product"],
    *["checkpoint", "reentrant checkpoint", "channel dropout written out"],
]
STATISTICS = ["functional batch norm", "functional instance norm", "instance norm", "moving average written out"]


def step(network: nn.Module, x: Tensor, *, training: bool, seed: int = 3) -> dict[str, Tensor]:
    """What one step leaves, on a copy: output, gradients of input and parameters, buffers."""
    network, x = copy.deepcopy(network).train(training), x.clone().requires_grad_()
    torch.manual_seed(seed)
    out = network(x + 0)
    (out * torch.linspace(-1, 2, out.numel()).view(out.shape)).sum().backward()
    left = {"output": out.detach(), "input": x.grad}
    left |= {f"gradient of {name}": p.grad for name, p in network.named_parameters() if p.grad is not None}
    return left | {name: buffer.clone() for name, buffer in network.named_buffers()}  # type: ignore[dict-item]


def verified(name: str) -> tuple[nn.Module, Verified]:
    """A network and its verified space, made anew."""
    torch.manual_seed(0)  # cut to its smallest widths, a network may be dead by chance
    model = NETS[name]()
    return model, verify(model, trace(model, image()))


once = cache(verified)
"""The same for those who only look at it."""


def cut(result: Verified) -> nn.Module:
    space = result.space
    return slice_model(result.network, space, space.smallest, random_ranking(space, np.random.default_rng(0)))


@pytest.mark.parametrize("name", NETS)
def test_at_full_width_a_step_is_that_of_the_model(name: str) -> None:
    model, result = once(name)
    assert not result.space.notes
    graph = result.network
    if not isinstance(graph, GraphNetwork):  # its own class serves
        traced = trace(model, image())
        graph = graph_network(model, traced.program, traced.space, image())
    for training in (True, False):
        for seed in (3, 4):
            expected, found = (step(n, image(), training=training, seed=seed) for n in (model, graph))
            assert found.keys() == expected.keys()
            for key, value in expected.items():
                assert torch.allclose(found[key], value, rtol=1e-4, atol=1e-5), (training, key)


@pytest.mark.parametrize("name", RANDOM)
def test_what_is_random_in_a_cut_network_is_so_in_training_alone(name: str) -> None:
    network = cut(once(name)[1])
    assert isinstance(network, GraphNetwork)
    first, *others = (step(network, image(), training=True, seed=seed)["output"] for seed in range(8))
    assert not all(torch.allclose(first, other) for other in others)  # two draws of few units may be alike
    one, other = (step(network, image(), training=False, seed=seed) for seed in (1, 2))
    assert torch.equal(one["output"], other["output"])


@pytest.mark.parametrize("name", STATISTICS)
def test_statistics_of_a_cut_network_move_in_training_alone(name: str) -> None:
    network = cut(once(name)[1])
    before = dict(network.named_buffers())
    assert before
    training, evaluation = (step(network, image(), training=mode) for mode in (True, False))
    assert all(torch.equal(evaluation[key], value) for key, value in before.items())
    assert not any(torch.equal(training[key], v) for key, v in before.items() if v.is_floating_point())


@pytest.mark.parametrize("name", [*RANDOM, *STATISTICS])
def test_what_training_changes_does_not_go_unseen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison is what names it, whatever the graph forgets."""
    monkeypatch.setattr(graph_form, "training_form", lambda *given: TrainingForm())
    assert any("in training, the traced graph does not do all" in note for note in verified(name)[1].space.notes)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_lost_backward_does_not_go_unseen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flatten, "mark", lambda graph: None)
    with pytest.raises(
        SpaceError, match=r"can only be cut as its traced graph, .* does not train like Net: .*gradient"
    ):
        verified(name)


@pytest.mark.parametrize("name", ["no gradients", "detached"])
def test_gradients_that_forward_stops_stop_because_the_graph_says_so(name: str) -> None:
    model, result = verified(name)
    network = result.network
    for node in network.graph_plan.program.nodes:  # type: ignore[union-attr]
        node.meta.pop("grad", None)
        if "detach" in str(node.target):
            node.target = torch.ops.aten.alias.default
    one, other = (step(n, image(), training=False) for n in (model, network))
    assert not torch.allclose(one["gradient of a.weight"], other["gradient of a.weight"])


@pytest.mark.parametrize("name", CANNOT_BE_REBUILT)
def test_what_cannot_be_rebuilt_is_named(name: str) -> None:
    model = CANNOT_BE_REBUILT[name]()
    space = verify(model, trace(model, image())).space
    assert space.form == "graph"
    assert [note for note in space.notes if note.startswith("in training, the traced graph does not do all")]


def test_a_function_that_reads_more_than_it_is_given_is_refused_by_name() -> None:
    model = baked(lambda n, y: Hidden.apply(y, n.c), c=conv(16, 16))
    with pytest.raises(SpaceError, match=r"gradient of a.weight.*the backward of Hidden is not kept"):
        verify(model, trace(model, image()))


class Counted(torch.autograd.Function):
    """Its backward has a number of channels in it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return grads[0].view(-1, 16, 6, 6)


def test_a_backward_with_sizes_in_it_is_refused_by_name() -> None:
    model = baked(lambda n, y: Counted.apply(y))
    with pytest.raises(SpaceError, match=r"the backward of a cut network does not run \(RuntimeError.*Counted"):
        verify(model, trace(model, image()))


@pytest.mark.parametrize("name", ["gradient reversal", "two outputs", "stochastic depth", "functional instance norm"])
def test_a_graph_that_is_traced_again_trains_alike(name: str) -> None:
    model, result = once(name)
    again = full_network(model, result.space, origin_of(trace(model, image())))
    for graph in (again, in_form(result)(model)):
        expected, found = (step(network, image(), training=True) for network in (model, graph))
        assert all(torch.allclose(found[key], value, rtol=1e-4, atol=1e-5) for key, value in expected.items())


@pytest.mark.parametrize("name", ["two outputs", "stochastic depth", "channel dropout written out", "attention"])
@pytest.mark.parametrize("batch", [1, 5])
def test_a_cut_network_trains_on_any_batch(name: str, batch: int) -> None:
    left = step(cut(once(name)[1]), torch.randn(batch, 3, 6, 6), training=True)
    assert left["output"].shape == (batch, 5)


def test_a_part_in_evaluation_stays_so_while_the_others_train() -> None:
    model = baked(lambda n, y: n.drop(n.norm(y)), norm=nn.InstanceNorm2d(16, track_running_stats=True), drop=nn.RReLU())
    network = verify(model, trace(model, image())).network.train()
    network.get_submodule("norm").eval()
    before = network.norm.running_mean.clone()  # type: ignore[union-attr, operator]
    torch.manual_seed(0)
    one, other = network(image()), network(image())
    assert not torch.equal(one, other)
    assert torch.equal(network.norm.running_mean, before)  # type: ignore[union-attr, arg-type]


def test_a_norm_that_is_frozen_by_its_own_forward_stays_frozen() -> None:
    class Still(nn.BatchNorm2d):
        def forward(self, x: Tensor) -> Tensor:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias)

    model = baked(lambda n, y: n.part(y), part=Still(16))
    result = verify(model, trace(model, image()))
    assert not result.space.notes
    left = step(result.network, image(), training=True)
    assert torch.equal(left["part.running_mean"], torch.zeros(16))


def test_norms_that_take_other_weights_than_their_own_are_followed() -> None:
    """Statistics of a batch norm without weights, and a scale that is computed."""

    def forward(n: Any, y: Tensor) -> Tensor:
        scale = n.scale.sigmoid()
        return F.batch_norm(y, n.part.running_mean, n.part.running_var, scale, None, n.training, 0.2)

    model = baked(forward, part=nn.BatchNorm2d(16, affine=False), scale=nn.Parameter(torch.randn(16)))
    result = verify(model, trace(model, image()))
    expected, found = (step(network, image(), training=True) for network in (model, result.network))
    assert all(torch.allclose(found[key], value, rtol=1e-4, atol=1e-5) for key, value in expected.items())


def test_blocks_are_left_out_of_the_graph_of_training_too() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.path = conv(8, 8), conv(8, 8), DropPath()

        def forward(self, x: Tensor) -> Tensor:
            return x + self.path(self.b(self.a(x).relu().view(-1, 8, 36).view(-1, 8, 6, 6)))

    torch.manual_seed(0)
    model = nn.Sequential(conv(3, 8), Block(), Block(), nn.Flatten(), nn.Linear(288, 5))
    result = verify(model, trace(model, image(), options=SpaceOptions(blocks=True)))
    assert result.network.graph_plan.training.program is not None  # type: ignore[union-attr]
    switches = result.space.presence.blocks
    widths = tuple(0 if i == min(switches) else g.width for i, g in enumerate(result.space.groups))
    ranking = random_ranking(result.space, np.random.default_rng(0))
    network = slice_model(result.network, result.space, widths, ranking)
    left = step(network, image(), training=True)
    assert "gradient of 2.a.weight" in left
    assert not any(key.startswith("gradient of 1.") for key in left)


def test_a_batch_of_one_is_compared_without_batch_norms() -> None:
    model = baked(
        lambda n, y: n.norm(y.mean((2, 3), keepdim=True)) + n.part(y), norm=nn.BatchNorm2d(16), part=Statistics(16)
    )
    assert not verify(model, trace(model, image()[:1])).space.notes


@pytest.mark.parametrize(("part", "steps"), [(nn.Identity(), 4), (nn.Dropout(0.5), 6)], ids=["nothing", "dropout"])
def test_another_seed_is_tried_where_something_is_drawn(
    part: nn.Module, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Model and graph make a step each: in evaluation, in training, and there once more if it draws numbers."""
    real, seeds = training_check._step, []
    monkeypatch.setattr(training_check, "_step", lambda *given: seeds.append(given[-1]) or real(*given))
    model = baked(lambda n, y: n.part(y), part=part)
    assert verify(model, trace(model, image())).space.form == "graph"
    assert len(seeds) == steps
