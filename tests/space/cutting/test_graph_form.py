"""The graph form of a cut network behaves as the user's module would: it trains, and is called and saved alike."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from attention_nets import FusedProjection, GroupedQueries, Tokens, Vision, tokens
from nets import Net, classify, conv, image
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from autoprune.errors import SpaceError
from autoprune.space.cutting.graph_form import GraphNetwork, graph_network
from autoprune.space.cutting.slicing import random_ranking, slice_model
from autoprune.space.groups import SearchSpace
from autoprune.space.tracing.program import Example, run_model
from autoprune.space.tracing.trace import Traced, trace
from autoprune.space.verification.flop_check import counted_by_fvcore
from autoprune.space.verification.verify import Verified, verify


class Baked(nn.Module):
    """Batch norms, two kinds of dropout, and a view with the channel count baked in."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.bn, self.drop = conv(3, 16), nn.BatchNorm2d(16), nn.Dropout(0.5)
        self.b, self.norm, self.fc = conv(16, 8), nn.BatchNorm2d(8, momentum=None), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn(self.a(x)))
        y = self.drop(y.view(x.shape[0], 16, 36)).view(x.shape[0], 16, 6, 6)
        y = F.dropout(F.relu(self.norm(self.b(y))), 0.2, self.training)
        return self.fc(y.mean((2, 3)))  # type: ignore[no-any-return]


MODELS: dict[str, tuple[Any, Example]] = {
    "baked": (Baked, image()),
    "vision": (Vision, torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(0))),
    "attention": (lambda: Tokens(FusedProjection(norm=True)), tokens(4)),
    "grouped queries": (lambda: Tokens(GroupedQueries(fused=False)), tokens(4)),
}


@cache
def built(name: str) -> tuple[nn.Module, Traced]:
    make, example = MODELS[name]
    torch.manual_seed(0)
    model = make()
    return model, trace(model, example)


@cache
def graph(name: str) -> GraphNetwork:
    """The graph at full width."""
    model, traced = built(name)
    return graph_network(model, traced.program, traced.space, traced.example)


def full(name: str) -> tuple[nn.Module, GraphNetwork, Example]:
    """Copies of a model and of its graph at full width."""
    model, traced = built(name)
    return copy.deepcopy(model), copy.deepcopy(graph(name)), traced.example


@cache
def verified_space(name: str) -> Verified:
    return verify(*built(name))


def cut(name: str, ratio: float = 0.5) -> tuple[nn.Module, SearchSpace]:
    """A cut network in graph form, and its space."""
    verified = verified_space(name)
    assert verified.space.form == "graph"
    ranking = random_ranking(verified.space, np.random.default_rng(0))
    return slice_model(verified.network, verified.space, verified.space.uniform(ratio), ranking), verified.space


def loss_of(model: nn.Module, x: Tensor) -> Tensor:
    return F.cross_entropy(model(x), torch.arange(len(x)) % 5)


@pytest.fixture(params=MODELS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_at_full_width_it_gives_what_the_module_gives(name: str) -> None:
    model, traced, example = full(name)
    assert torch.allclose(traced.eval()(example), model.eval()(example), atol=1e-6)


def test_in_training_it_draws_the_same_dropout_and_moves_the_same_statistics(name: str) -> None:
    model, traced, example = full(name)
    found = []
    for network in (traced, model):
        torch.manual_seed(7)
        found.append(network.train()(example))
    assert torch.allclose(*found, atol=1e-5)
    one, other = traced.state_dict(), model.state_dict()
    assert one.keys() == other.keys()
    assert all(torch.allclose(one[key], other[key], atol=1e-6) for key in other)


def test_gradients_are_those_of_the_module(name: str) -> None:
    model, traced, example = full(name)
    for network in (traced.eval(), model.eval()):
        run_model(network, example).square().sum().backward()
    theirs = {key: p.grad for key, p in model.named_parameters()}
    for key, parameter in traced.named_parameters():
        assert torch.allclose(parameter.grad, theirs[key], atol=1e-4), key  # type: ignore[arg-type]


def test_its_tensors_have_the_names_of_the_model_and_are_copies(name: str) -> None:
    model, network = built(name)[0], graph(name)
    assert list(network.state_dict()) == list(model.state_dict())
    assert [key for key, _ in network.named_parameters()] == [key for key, _ in model.named_parameters()]
    theirs = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    assert not any(t.untyped_storage().data_ptr() in theirs for t in (*network.parameters(), *network.buffers()))


def test_flops_are_those_of_the_module(name: str) -> None:
    model, traced, example = full(name)
    counts = []
    for network in (traced.eval(), model.eval()):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            run_model(network, example)
        counts.append((counter.get_total_flops(), counted_by_fvcore(network, example)))
    assert counts[0] == counts[1]


def test_a_cut_network_learns(name: str) -> None:
    network, _ = cut(name)
    network.train()
    example = MODELS[name][1]
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    torch.manual_seed(0)
    losses = []
    for _ in range(40):
        optimiser.zero_grad()
        loss = loss_of(network, example)  # type: ignore[arg-type]
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_it_takes_any_batch(name: str, batch: int) -> None:
    network, _ = cut(name)
    example = MODELS[name][1]
    assert isinstance(example, Tensor)
    x = torch.randn(batch, *example.shape[1:])
    network.eval()
    rows = torch.cat([network(x[i : i + 1]) for i in range(batch)])
    assert torch.allclose(network(x), rows, atol=1e-5)


def test_another_resolution_is_refused_with_what_to_do() -> None:
    network, _ = cut("baked")
    with pytest.raises(
        SpaceError, match=r"takes \(2, 3, 6, 6\).*got \(2, 3, 8, 8\); trace the model with inputs of that"
    ):
        network(torch.randn(2, 3, 8, 8))


def test_another_number_of_inputs_is_refused() -> None:
    network, _ = cut("baked")
    with pytest.raises(SpaceError, match="must be called as it was traced"):
        network(image(), image())


def test_a_copy_is_independent_and_gives_the_same() -> None:
    network, _ = cut("baked")
    twin = copy.deepcopy(network).eval()
    network.eval()
    expected = network(image())
    assert torch.equal(twin(image()), expected)
    with torch.no_grad():
        twin.fc.bias.add_(1)  # type: ignore[union-attr, operator]
    assert torch.equal(network(image()), expected)


def test_a_state_dict_goes_from_one_network_to_another_of_the_same_widths() -> None:
    one, _ = cut("baked")
    other, _ = cut("baked")
    with torch.no_grad():
        for parameter in one.parameters():
            parameter.mul_(0.5)
    other.load_state_dict(one.state_dict())
    assert torch.equal(other.eval()(image()), one.eval()(image()))


def test_statistics_move_in_training_only_and_count_batches() -> None:
    network, _ = cut("baked")
    norm: Any = network.bn
    before = norm.running_mean.clone()
    network.eval()(image())
    assert torch.equal(norm.running_mean, before)
    network.train()(image())
    assert not torch.equal(norm.running_mean, before)
    assert int(norm.num_batches_tracked) == 1


def test_a_frozen_batch_norm_stays_frozen_while_the_others_learn() -> None:
    network, _ = cut("baked")
    frozen, free = (network.train().get_submodule(name) for name in ("bn", "norm"))
    frozen.eval()
    before = frozen.running_mean.clone(), free.running_mean.clone()  # type: ignore[union-attr, operator]
    network(image())
    assert torch.equal(frozen.running_mean, before[0])  # type: ignore[arg-type]
    assert not torch.equal(free.running_mean, before[1])  # type: ignore[arg-type]


def test_dropout_is_active_in_training_alone() -> None:
    network, _ = cut("baked")
    network.bn.eval(), network.norm.eval()  # type: ignore[union-attr, operator]
    network.eval()
    assert torch.equal(network(image()), network(image()))
    network.train()
    assert not torch.equal(network(image()), network(image()))


def test_a_single_dropout_can_be_switched_off() -> None:
    """`drop.eval()` leaves the functional one, which asks the model itself."""
    network, _ = cut("baked")
    network.train()
    for name in ("bn", "norm", "drop"):
        network.get_submodule(name).eval()
    assert not torch.equal(network(image()), network(image()))
    network.training = False
    assert torch.equal(network(image()), network(image()))


def test_inputs_can_be_given_by_name_or_by_position() -> None:
    network, _ = cut("baked")
    network.eval()
    assert torch.equal(network(x=image()), network(image()))


def test_a_model_called_with_names_is_called_with_names_again() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.fc = conv(3, 16), conv(3, 16), nn.Linear(16, 5)

        def forward(self, left: Tensor, right: Tensor, times: float = 1.0) -> Tensor:
            y = self.a(left) + times * self.b(right)
            return classify(self, y.view(left.shape[0], 16, 36).view(left.shape[0], 16, 6, 6))

    torch.manual_seed(0)
    model, example = Named().eval(), {"right": image() + 1, "left": image()}
    verified = verify(model, trace(model, example))
    assert verified.space.form == "graph"
    assert torch.allclose(verified.network(**example), model(**example), atol=1e-6)
    narrow = slice_model(verified.network, verified.space, verified.space.smallest, (np.arange(16),))
    assert narrow(right=image(), left=image()).shape == (2, 5)


def test_any_number_of_inputs_in_the_signature_is_no_hindrance() -> None:
    """`forward(self, *inputs)` has no names to bind."""
    net = Net(lambda n, x: classify(n, n.a(x).view(-1, 16, 36).view(-1, 16, 6, 6)), a=conv(3, 16), fc=nn.Linear(16, 5))
    verified = verify(net, trace(net, image()))
    assert verified.space.form == "graph"
    assert torch.allclose(verified.network.eval()(image()), net.eval()(image()), atol=1e-6)


def test_it_says_what_it_is() -> None:
    network, _ = cut("baked")
    assert "graph of Baked" in repr(network)
    assert isinstance(network, GraphNetwork)
    assert network.training
