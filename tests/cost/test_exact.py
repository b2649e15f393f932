"""FLOPs against numbers derived by hand where counters of operators are wrong, and against fvcore elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoprune.cost.flops import flops
from autoprune.space.cutting.slicing import random_ranking, slice_model
from autoprune.space.groups import SearchSpace, Widths
from autoprune.space.tracing.trace import trace
from autoprune.space.verification.flop_check import counted_by_fvcore
from autoprune.space.verification.verify import verify


def cost(space: SearchSpace, widths: Widths | None = None) -> int:
    return int(flops(space)(np.array([space.full if widths is None else widths]))[0])


class Attention(nn.Module):
    """Projections around `scaled_dot_product_attention`."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        n, length, _ = x.shape
        q, k, v = (p(x).view(n, length, self.heads, -1).transpose(1, 2) for p in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, length, -1)
        out: Tensor = self.out(mixed)
        return out


def test_one_attention_block_costs_41_94_million_and_not_8_39() -> None:
    """512 tokens of width 64: four projections of 512 x 64 x 64, and two products of 512 x 512 x 64."""
    model, example = Attention(64, 4), torch.zeros(1, 512, 64)
    space = trace(model, example).space
    projections, products = 4 * 512 * 64 * 64, 2 * 512 * 512 * 64
    assert (projections, projections + products) == (8_388_608, 41_943_040)
    assert cost(space) == projections + products
    assert counted_by_fvcore(model, example) == projections
    (heads,) = [index for index, group in enumerate(space.groups) if group.kind == "heads"]
    half = tuple(2 if index == heads else group.width for index, group in enumerate(space.groups))
    assert cost(space, half) == (projections + products) // 2


class Multihead(nn.Module):
    """`nn.MultiheadAttention` as self-attention, in evaluation the fused operator."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(width, heads, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x, x, x, need_weights=False)[0]
        return out


@pytest.mark.parametrize(("length", "width", "heads"), [(512, 64, 4), (7, 24, 3)])
def test_fused_multi_head_attention_costs_its_projections_and_both_products(
    length: int, width: int, heads: int
) -> None:
    space = trace(Multihead(width, heads).eval(), torch.zeros(2, length, width)).space
    assert cost(space) == 2 * (4 * length * width * width + 2 * length * length * width)
    (group,) = [index for index, g in enumerate(space.groups) if g.kind == "heads"]
    one = tuple(1 if index == group else g.width for index, g in enumerate(space.groups))
    inner = width // heads
    assert cost(space, one) == 2 * (4 * length * width * inner + 2 * length * length * inner)


class Recurrent(nn.Module):
    """One recurrent layer; the sum of its outputs is the output, so that its hidden width can be cut."""

    def __init__(self, kind: type[nn.RNNBase], inputs: int, hidden: int) -> None:
        super().__init__()
        self.layer, self.head = kind(inputs, hidden, batch_first=True), nn.Linear(hidden, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.layer(x)[0][:, -1])
        return out


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3)])
def test_recurrent_layers_cost_every_gate_at_every_step(kind: type[nn.RNNBase], gates: int) -> None:
    steps, inputs, hidden = 20, 32, 64
    space = trace(Recurrent(kind, inputs, hidden), torch.zeros(1, steps, inputs)).space
    assert cost(space) == steps * gates * hidden * (inputs + hidden) + 2 * hidden
    if kind is nn.LSTM:
        assert cost(space) - 2 * hidden == 491_520
    (index,) = [i for i, group in enumerate(space.groups) if group.width == hidden]
    narrow = tuple(10 if i == index else group.width for i, group in enumerate(space.groups))
    assert cost(space, narrow) == steps * gates * 10 * (inputs + 10) + 2 * 10


class Convolutions(nn.Module):
    """Every kind of convolution, and products of activations."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 12, 3, stride=2, padding=1)
        self.depthwise = nn.Conv2d(12, 12, 5, padding=2, groups=12)
        self.grouped = nn.Conv2d(12, 16, 3, padding=1, groups=4)
        self.dilated = nn.Conv2d(16, 10, 3, padding=2, dilation=2)
        self.up = nn.ConvTranspose2d(10, 6, 2, stride=2)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.dilated(F.relu(self.grouped(F.relu(self.depthwise(F.relu(self.first(x)))))))
        x = F.relu(self.up(F.relu(x))).flatten(2)
        weights = torch.softmax(x.transpose(1, 2) @ x, dim=-1)  # positions by positions
        out: Tensor = self.head((x @ weights).mean(2))
        return out


@pytest.mark.parametrize("seed", range(4))
def test_convolutions_and_products_cost_what_fvcore_counts_on_the_built_network(seed: int) -> None:
    model, example = Convolutions().eval(), torch.randn(1, 3, 12, 12)
    verified = verify(model, trace(model, example))
    space, rng = verified.space, np.random.default_rng(seed)
    widths = space.full if seed == 0 else tuple(int(rng.choice(group.choices)) for group in space.groups)
    built = slice_model(verified.network, space, widths, random_ranking(space, rng))
    assert cost(space, widths) == counted_by_fvcore(built, example)
