"""Every method on networks put together by chance and on attention: nothing breaks, and what is left alone is named."""

from __future__ import annotations

import copy

import pytest
import torch
from graph_nets import VisionTransformer
from random_nets import SIDE, RandomNet
from small_networks import TransformerLayer
from torch import Tensor, nn

from autoprune.importance.members import rank_channels
from autoprune.inherit import INHERITANCE
from autoprune.inherit.base import Chain, Statistics
from autoprune.inherit.channel_calls import ChannelCall, ChannelCalls
from autoprune.space.cutting.slicing import Slicer
from autoprune.space.groups import SearchSpace
from autoprune.space.tracing.trace import trace
from autoprune.space.verification.verify import verify
from autoprune.testing.masking import randomised

SEEDS = [0, 3, 5, 11, 18, 26]


def traced(model: nn.Module, inputs: Tensor) -> tuple[nn.Module, SearchSpace]:
    verified = verify(model.eval(), trace(model, inputs))
    return verified.network, verified.space


def images(batch: int, seed: int) -> Tensor:
    return torch.randn(batch, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("method", INHERITANCE.names())
@pytest.mark.parametrize("seed", SEEDS)
def test_networks_put_together_by_chance_stay_whole_at_full_width_and_finite_below(seed: int, method: str) -> None:
    dense, space = traced(randomised(RandomNet(seed)), images(2, 0))
    slicer = Slicer(dense, space, rank_channels(dense, space, "l2"))
    chain, statistics = Chain([method]), Statistics(lambda n: [images(8, 1)], torch.device("cpu"))
    with torch.no_grad():
        if method != "bn_recalibration":  # the norms of these networks are not those of the images
            full = chain.apply(slicer.cut(space.full), dense, statistics).eval()
            assert torch.allclose(full(images(4, 2)), dense.eval()(images(4, 2)), rtol=1e-5, atol=1e-5)
        cut = chain.apply(slicer.cut(space.smallest), dense, statistics).eval()
        assert cut(images(4, 2)).isfinite().all()


def seen_in(model: nn.Module, space: SearchSpace, inputs: Tensor) -> dict[str, tuple[ChannelCall, Tensor, Tensor]]:
    found: dict[str, tuple[ChannelCall, Tensor, Tensor]] = {}
    twin = copy.deepcopy(model)

    def visit(key: tuple[str, int], consumer: ChannelCall, given: Tensor, weight: Tensor) -> None:
        found[key[0]] = consumer, given, weight

    calls = ChannelCalls(twin, space, visit)
    with torch.no_grad(), calls.batch():
        twin(inputs)
    assert calls.readers == set(found)
    return found


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.layer, self.head = nn.Linear(6, 16), TransformerLayer(16, 4), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.layer(self.embed(x)).mean(1))
        return out


@pytest.mark.parametrize("kind", ["multi-head attention", "graph"])
def test_the_projections_of_attention_are_seen_in_module_form_and_in_graph_form(kind: str) -> None:
    torch.manual_seed(0)
    model, inputs = (
        (Classifier(), torch.randn(2, 5, 6)) if kind != "graph" else (VisionTransformer(), torch.randn(2, 1, 8, 8))
    )
    dense, space = traced(model, inputs)
    assert space.form == ("graph" if kind == "graph" else space.form)
    for consumer, given, weight in seen_in(dense, space, inputs).values():
        rows, matrix = consumer.rows(given), consumer.matrix(weight)
        if consumer.spatial == 0:
            outputs = consumer.call.run(given, weight)
            assert torch.allclose(rows[:, 0] @ matrix[0], outputs.reshape(len(rows), -1), atol=1e-5)
        assert torch.equal(consumer.weights(matrix, weight), weight)


@pytest.mark.parametrize("chosen", [["mean_fold"], ["reuse"], ["reuse", "mean_fold"], ["thinet_scale"]])
def test_what_is_fitted_brings_a_transformer_nearer_to_what_it_was(chosen: list[str]) -> None:
    torch.manual_seed(1)
    model, inputs = Classifier(), torch.randn(64, 5, 6)
    dense, space = traced(model, inputs[:2])
    slicer, statistics = (
        Slicer(dense, space, rank_channels(dense, space, "l2")),
        Statistics(lambda n: [inputs], torch.device("cpu")),
    )
    widths = tuple(
        w if group.residual else n for w, n, group in zip(space.full, space.uniform(0.5), space.groups, strict=True)
    )
    errors = []
    for methods in ([], chosen):
        network = Chain(methods).apply(slicer.cut(widths), dense, statistics).eval()
        with torch.no_grad():
            errors.append((network(inputs) - dense(inputs)).square().mean().item())
    assert errors[1] < errors[0]


def test_recurrent_weights_are_left_alone_and_named() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.over, self.head = nn.Linear(4, 8), nn.GRU(8, 6, batch_first=True), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(self.over(torch.relu(self.first(x)))[0])
            return out

    torch.manual_seed(2)
    inputs = torch.randn(4, 5, 4)
    dense, space = traced(Recurrent(), inputs)
    chain = Chain(["reuse"])
    cut = Slicer(dense, space, rank_channels(dense, space, "l2")).cut(space.uniform(0.5))
    before = copy.deepcopy(cut.network.state_dict())
    chain.apply(cut, dense, Statistics(lambda n: [inputs], torch.device("cpu")))
    left = {name.rpartition(".")[2] for name in chain.left_alone}
    assert left == {"weight_ih_l0", "weight_hh_l0"}
    after = cut.network.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"head.weight"}


def test_a_weight_that_is_an_embedding_too_is_folded_into_but_not_fitted() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(7, 8), nn.Linear(8, 7)
            self.head.weight = self.embed.weight

        def forward(self, tokens: Tensor) -> Tensor:
            out: Tensor = self.head(torch.relu(self.embed(tokens)))
            return out

    torch.manual_seed(3)
    tokens = torch.randint(7, (16, 5))
    dense, space = traced(Tied(), tokens[:2])
    slicer, statistics = (
        Slicer(dense, space, rank_channels(dense, space, "l2")),
        Statistics(lambda n: [tokens], torch.device("cpu")),
    )
    chain, cut = Chain(["reuse", "mean_fold"]), slicer.cut(space.uniform(0.5))
    before = copy.deepcopy(cut.network.state_dict())
    after = chain.apply(cut, dense, statistics).state_dict()
    assert list(chain.left_alone.values()) == ["reuse: it is used for something else, too"]
    assert {name for name in before if not torch.equal(before[name], after[name])} == {"head.bias"}
