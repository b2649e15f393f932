"""Modules of a cut network remember the sizes they have."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from attention_nets import DIM, Multihead, Tokens, tokens
from nets import Net, classify, conv, image
from torch import Tensor, nn

import autoprune
from autoprune.space.cutting.slicing import random_ranking, slice_model
from autoprune.space.groups import Widths
from autoprune.space.tracing.trace import trace
from autoprune.space.verification.verify import verify


def halved(model: nn.Module, example: Any) -> tuple[nn.Module, Widths]:
    """The model at about half of every width, from its verified space, and the widths."""
    verified = verify(model, trace(model, example))
    widths = verified.space.uniform(0.5)
    ranking = random_ranking(verified.space, np.random.default_rng(0))
    return slice_model(verified.network, verified.space, widths, ranking).eval(), widths


def maps(*layers: nn.Module) -> nn.Module:
    """Layers from 16 to 16 channels between a convolution and a classifier."""

    def forward(n: Any, x: Tensor) -> Tensor:
        return classify(n, n.layers(n.a(x)))

    torch.manual_seed(0)
    return Net(forward, a=conv(3, 16), layers=nn.Sequential(*layers), fc=nn.Linear(16, 5))


LAYERS: dict[str, tuple[nn.Module, dict[str, Any]]] = {
    "convolution": (conv(16, 16), {"in_channels": 8, "out_channels": 8, "groups": 1}),
    "depthwise": (conv(16, 16, groups=16), {"in_channels": 8, "out_channels": 8, "groups": 8}),
    "grouped": (conv(16, 16, groups=4), {"in_channels": 8, "out_channels": 8, "groups": 4}),
    "transposed": (nn.ConvTranspose2d(16, 16, 1), {"in_channels": 8, "out_channels": 8}),
    "batch norm": (nn.BatchNorm2d(16), {"num_features": 8}),
    "instance norm": (nn.InstanceNorm2d(16, affine=True), {"num_features": 8}),
    "group norm of whole groups": (nn.GroupNorm(8, 16), {"num_channels": 8, "num_groups": 4}),
    "group norm of narrower groups": (nn.GroupNorm(2, 16), {"num_channels": 8, "num_groups": 2}),
    "slopes": (nn.PReLU(16), {"num_parameters": 8}),
    "one slope": (nn.PReLU(), {"num_parameters": 1}),
}


@pytest.mark.parametrize("name", LAYERS)
def test_attributes_of_layers_are_those_of_their_tensors(name: str) -> None:
    layer, expected = LAYERS[name]
    before = {attribute: value for attribute, value in vars(layer).items() if isinstance(value, int | tuple)}
    cut, _ = halved(maps(layer), image())
    found = cut.layers[0]  # type: ignore[index, union-attr]
    assert {attribute: getattr(found, attribute) for attribute in expected} == expected
    assert {attribute: getattr(layer, attribute) for attribute in before} == before, "the full network's are others"


@pytest.mark.parametrize("norm", [nn.LayerNorm(DIM), nn.RMSNorm(DIM)])
def test_normalised_shapes_follow(norm: nn.Module) -> None:
    cut, _ = halved(Tokens(norm), tokens())
    assert cut.part.normalized_shape == (8,)  # type: ignore[union-attr]


@pytest.mark.parametrize("layer", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_know_their_widths(layer: type[nn.RNNBase]) -> None:
    recurrent = layer(16, 6, 2, batch_first=True)
    model = Net(lambda n, x: n.fc(n.r(n.a(x))[0].mean(1)), a=nn.Linear(12, 16), r=recurrent, fc=nn.Linear(6, 5))
    cut, _ = halved(model, tokens())
    found: Any = cut.r
    assert (found.input_size, found.hidden_size) == (8, 3)
    assert found._flat_weights[0] is found.weight_ih_l0


def test_a_projected_lstm_keeps_its_hidden_width() -> None:
    lstm = nn.LSTM(12, 6, proj_size=4, batch_first=True)
    model = Net(lambda n, x: n.fc(n.b(n.r(x)[0]).mean(1)), r=lstm, b=nn.Linear(4, 8), fc=nn.Linear(8, 5))
    cut, _ = halved(model, tokens())
    assert (cut.r.hidden_size, cut.r.proj_size) == (6, 4)  # type: ignore[union-attr]


def test_a_table_and_the_layer_behind_it_know_their_width() -> None:
    model = Net(lambda n, x: n.fc(n.e(x)), e=nn.Embedding(9, 16), fc=nn.Linear(16, 5))
    cut, _ = halved(model, torch.tensor([[1, 2]]))
    assert (cut.e.num_embeddings, cut.e.embedding_dim, cut.fc.in_features) == (9, 8, 8)  # type: ignore[union-attr]


class CountsHeads(nn.Module):
    """Attention that reads only its number of heads: views ask for the rest."""

    def __init__(self, attribute: str) -> None:
        super().__init__()
        self.attribute, self.head_dim = attribute, 4
        setattr(self, attribute, 4)
        self.qkv, self.proj = nn.Linear(DIM, 3 * DIM), nn.Linear(DIM, DIM)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, getattr(self, self.attribute), -1)).permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.proj(y.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


@pytest.mark.parametrize("attribute", ["num_heads", "n_head", "heads", "num_attention_heads"])
def test_attention_that_counts_its_heads_in_an_attribute_keeps_the_class_of_the_user(attribute: str) -> None:
    model = Tokens(CountsHeads(attribute))
    cut, _ = halved(model, tokens())
    assert type(cut) is Tokens
    assert getattr(cut.part, attribute) == 2
    assert getattr(model.part, attribute) == 4


def test_attention_whose_heads_nobody_finds_runs_as_a_graph() -> None:
    cut, _ = halved(Tokens(CountsHeads("number_of_views")), tokens())
    assert type(cut) is not Tokens
    assert cut(tokens()).shape == (2, 5)


def test_a_cut_multihead_attention_runs() -> None:
    cut, _ = halved(Tokens(Multihead(batch_first=True)), tokens())
    assert cut(tokens()).shape == (2, 5)


class Fused(nn.Module):
    """A block that remembers its sizes to build one convolution of its branches."""

    def __init__(self, before: int, after: int, depthwise: bool) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.groups = before, after, before if depthwise else 1
        self.branch = conv(before, after, groups=self.groups)
        self.norm, self.shortcut = nn.BatchNorm2d(after), nn.BatchNorm2d(before)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.branch(x)) + self.shortcut(x)  # type: ignore[no-any-return]

    def fused(self) -> nn.Conv2d:
        layer = conv(self.in_channels, self.out_channels, groups=self.groups)
        identity = torch.zeros_like(layer.weight)
        for i in range(self.out_channels):
            identity[i, i % (self.in_channels // self.groups), 1, 1] = 1.0
        kernels = [(self.branch.weight, self.branch.bias, self.norm), (identity, torch.tensor(0.0), self.shortcut)]
        scales = [n.weight / (n.running_var + n.eps).sqrt() for *_, n in kernels]
        with torch.no_grad():
            layer.weight.copy_(sum(s[:, None, None, None] * k for s, (k, *_) in zip(scales, kernels, strict=True)))
            parts = (s * (b - n.running_mean) + n.bias for s, (_, b, n) in zip(scales, kernels, strict=True))
            layer.bias.copy_(sum(parts))
        return layer


@pytest.mark.parametrize("depthwise", [False, True])
def test_a_block_that_can_be_fused_can_be_so_when_cut(depthwise: bool) -> None:
    cut: Any
    cut, _ = halved(maps(Fused(16, 16, depthwise)), image())
    block, x = cut.layers[0], torch.randn(2, 8, 6, 6)
    assert (block.in_channels, block.out_channels, block.groups) == (8, 8, 8 if depthwise else 1)
    torch.testing.assert_close(block.fused()(x), block(x))


def test_an_attribute_that_several_sizes_could_explain_stays() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dim, self.first, self.second = 16, conv(16, 16), conv(16, 16)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x).relu())  # type: ignore[no-any-return]

    model = maps(Block())
    space = autoprune.trace(model, image())
    cut: Any = space.slice(model, tuple(n // (2 + i) for i, n in enumerate(space.full)))
    assert cut.layers[0].dim == 16
