"""Fresh weights of networks with embeddings and of those in graph form, by the loss that they begin with."""

from __future__ import annotations

import copy
import math

import hugging_face
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from autoprune.space.cutting.graph_form import GraphNetwork, graph_network
from autoprune.space.cutting.slicing import random_ranking, slice_model
from autoprune.space.tracing.trace import trace
from autoprune.space.verification.verify import verify
from autoprune.training.protocols import reinitialise
from autoprune.zoo import build_model

VOCABULARY = 97
TOKENS = torch.randint(1, VOCABULARY, (4, 8), generator=torch.Generator().manual_seed(0))


class Tied(nn.Module):
    """Embedding and output are one matrix of deviation 0.02, whichever of them stands first."""

    def __init__(self, *, first: str = "embedding", padding: int | None = None, deviation: float = 0.02) -> None:
        super().__init__()
        if first == "output":
            self.output = nn.Linear(64, VOCABULARY, bias=False)
        self.embedding = nn.Embedding(VOCABULARY, 64, padding_idx=padding)
        if first == "embedding":
            self.output = nn.Linear(64, VOCABULARY, bias=False)
        self.middle = nn.Linear(64, 64)
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            nn.init.normal_(self.embedding.weight, std=deviation)
            if padding is not None:
                self.embedding.weight[padding] = 0
        self.output.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        logits: Tensor = self.output(x + self.middle(x))
        return logits


class ByModule(Tied):
    """As nanoGPT: what one module begins with is said by the network."""

    def __init__(self) -> None:
        super().__init__(deviation=1.0)

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, mean=0.0, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.constant_(module.bias, 0.25)


class OfSomethingElse(Tied):
    def _init_weights(self, deviation: float = 9.0) -> None:
        nn.init.constant_(self.middle.weight, deviation if isinstance(deviation, float) else 9.0)


class Baked(nn.Module):
    """A size in a view, which asks for the graph form, and an initialisation that uses attributes of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 6, 3), nn.Linear(6, 4)
        self.shift = nn.Parameter(torch.linspace(-1, 1, 6))
        self.level, self.parts = 0.125, [self.first]

    def reset_parameters(self) -> None:
        nn.init.constant_(self.parts[0].weight, self.level)
        nn.init.ones_(self.shift)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x).view(-1, 6, 36) + self.shift[:, None]
        out: Tensor = self.last(y.mean(2))
        return out


class ForFullWidth(Baked):
    """What it begins with has the full width, however wide the network is."""

    def reset_parameters(self) -> None:
        nn.init.constant_(self.first.weight, self.level)
        self.shift = nn.Parameter(torch.ones(6))


def loss(network: nn.Module) -> float:
    with torch.no_grad():
        logits = network(TOKENS)
    return nn.functional.cross_entropy(logits.flatten(0, 1), TOKENS.roll(-1, 1).flatten()).item()


def graph_of(model: nn.Module, example: Tensor) -> GraphNetwork:
    traced = trace(model, example)
    return graph_network(model, traced.program, traced.space, traced.example, trained=False)


@pytest.mark.parametrize("first", ["embedding", "output"])
def test_tied_embeddings_begin_as_wide_as_they_were_and_with_the_loss_of_chance(first: str) -> None:
    network = Tied(first=first, padding=0)
    before = network.embedding.weight.clone()
    reinitialise(network, seed=1)
    weight: Tensor = network.embedding.weight
    assert network.output.weight is weight
    assert weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert not torch.equal(weight, before)
    assert not weight[0].any()
    assert loss(network) == pytest.approx(math.log(VOCABULARY), abs=0.1)
    again = Tied(first=first, padding=0)
    reinitialise(again, seed=1)
    assert torch.equal(again.embedding.weight, weight)


def test_constant_embeddings_stay() -> None:
    network = nn.Sequential(nn.EmbeddingBag(5, 4))
    nn.init.constant_(network[0].weight, 0.5)
    reinitialise(network, seed=0)
    assert network[0].weight.eq(0.5).all()


def test_a_network_says_what_each_of_its_modules_begins_with() -> None:
    for network in (ByModule(), nn.Sequential(ByModule()), graph_of(ByModule(), TOKENS)):
        identities = [id(p) for p in network.parameters()]
        reinitialise(network, seed=1)
        weights = {name.rpartition("middle.")[2]: value for name, value in network.named_parameters()}
        assert weights["weight"].std().item() == pytest.approx(0.02, rel=0.05)
        assert weights["bias"].eq(0.25).all()
        assert loss(network) == pytest.approx(math.log(VOCABULARY), abs=0.1)
        assert [id(p) for p in network.parameters()] == identities


@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt2", "bert", "whisper"])
def test_networks_of_transformers_begin_as_they_were_made(name: str) -> None:
    network = hugging_face.network(name)
    made = {name: value.clone() for name, value in network.named_parameters()}
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(5.0).add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
    reinitialise(network, seed=1)
    for name, parameter in network.named_parameters():
        assert parameter.std().item() == pytest.approx(made[name].std().item(), rel=0.35, abs=1e-7), name
        if made[name].min() == made[name].max():
            assert torch.equal(parameter, made[name]), name


def test_what_only_has_that_name_is_not_asked() -> None:
    network, plain = OfSomethingElse(), Tied()
    for one in (network, plain):
        reinitialise(one, seed=1)
    assert torch.equal(network.middle.weight, plain.middle.weight)


def test_networks_without_embeddings_begin_as_they_did() -> None:
    def asked(module: nn.Module) -> None:
        raise AssertionError("torch's own initialisation holds")

    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(4, 5))
    network._init_weights = asked
    reinitialise(network, seed=3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        for module in (network[1], network[0]):
            expected = copy.deepcopy(module)
            expected.reset_parameters()
            assert torch.equal(expected.weight, module.weight)
            assert torch.equal(expected.bias, module.bias)


def test_a_language_model_begins_alike_as_its_class_and_as_its_graph() -> None:
    sizes = {"vocabulary": VOCABULARY, "width": 32, "layers": 2, "heads": 4, "key_value_heads": 2, "hidden": 48}
    model = build_model("char_llama", {**sizes, "context": 16})
    graph = graph_of(model, TOKENS)
    for network in (model, graph, copy.deepcopy(graph)):
        reinitialise(network, seed=2)
    assert all(torch.equal(value, graph.state_dict()[name]) for name, value in model.state_dict().items())
    assert model.get_parameter("embedding.weight").std().item() == pytest.approx(0.02, rel=0.1)
    assert loss(graph) == pytest.approx(math.log(VOCABULARY), abs=0.2)


@pytest.mark.parametrize(("kind", "fits"), [(Baked, True), (ForFullWidth, False)])
def test_a_cut_graph_begins_as_its_class_says_where_that_fits_its_widths(kind: type[Baked], fits: bool) -> None:
    torch.manual_seed(0)
    model, image = kind(), torch.zeros(2, 1, 8, 8)
    verified = verify(model, trace(model, image))
    space, full = verified.space, copy.deepcopy(verified.network)
    half = space.uniform(0.5)
    cut = slice_model(verified.network, space, half, random_ranking(space, np.random.default_rng(0)))
    assert isinstance(cut, GraphNetwork)
    for network in (full, cut):
        reinitialise(network, seed=1)
    assert full.get_parameter("first.weight").eq(0.125).all()
    assert full.get_parameter("shift").eq(1).all()
    assert bool(cut.get_parameter("first.weight").eq(0.125).all()) == fits
    assert cut.get_parameter("shift").shape == (half[0],)
    assert cut(image).shape == (2, 4)
