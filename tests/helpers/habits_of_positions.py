"""Habits of code that works along other dimensions than those of the channels: pixels, nodes, tokens, frames."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from habits import FREE, between, case, habit, linear
from nets import Net, conv, image
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from autoprune.testing.rules import RuleCase

NODES = 8


def edges() -> Tensor:
    """(2, edges): where each edge begins and ends; every node has some."""
    generator = torch.Generator().manual_seed(0)
    return torch.stack([torch.randint(NODES, (20,), generator=generator), torch.arange(20) % NODES])


def graph_network(step: Any, width: int = 16, **parts: nn.Module) -> Net:
    """Linear a (7 to 16) over nodes, a step along edges, linear b (`width` to 8), classifier."""

    def forward(n: Any, x: Tensor, e: Tensor) -> Tensor:
        return n.fc(F.relu(n.b(F.relu(step(n, F.relu(n.a(x)), e[0], e[1])))))  # type: ignore[no-any-return]

    return Net(forward, a=nn.Linear(7, 16), b=nn.Linear(width, 8), fc=linear(8), **parts)


def nodes() -> tuple[Tensor, Tensor]:
    return torch.randn(NODES, 7, generator=torch.Generator().manual_seed(0)), edges()


# --- one channel at a time -----------------------------------------------------------------------------------------
@habit
def choice_with_numbers() -> RuleCase:
    def step(n: Any, y: Tensor) -> Tensor:
        y = torch.where(y > 0.1, y, 0.0) - torch.where(y < 0.2, 0.5, y)
        y = y.clone()
        y[y < -0.4] = 0.3
        return y.masked_fill_(y > 1, 1.0)

    return case(between(step), FREE)


@habit
def selection_of_pixels() -> RuleCase:
    def step(n: Any, y: Tensor) -> Tensor:
        rows = y.flatten(2)
        best = rows.topk(8)[0].mean(-1) + rows.median(-1)[0] - rows.kthvalue(3, -1)[0] + rows.quantile(0.7, -1)
        levels = rows.quantile(torch.tensor([0.1, 0.9]), -1).sum(0) + rows.aminmax(dim=-1)[1]
        ranked = rows.sort(-1)[0].gather(2, rows.argsort(-1)).view(y.shape)
        return y.cummax(-1)[0] + y.logcumsumexp(-2) + ranked + (best + levels)[..., None, None]

    return case(between(step), FREE)


@habit
def spectra_of_pixels() -> RuleCase:
    def step(n: Any, y: Tensor) -> Tensor:
        spectrum = torch.fft.rfft2(y)
        parts = torch.view_as_real(torch.fft.fftn(y, dim=(2, 3))).square().sum((-1, -2, -3))
        y = torch.fft.irfft2(spectrum * spectrum.abs(), s=y.shape[-2:]) + parts[..., None, None] / 64
        return torch.complex(y, y).abs() + torch.rot90(y, 1, (2, 3))

    return case(between(step), FREE)


@habit
def comparison_of_maps() -> RuleCase:
    """Similarities and distances over channels, to which those that are cut add nothing, and between pixels."""

    def step(n: Any, y: Tensor) -> Tensor:
        tokens = y.flatten(2).mT
        far = torch.cdist(tokens, tokens.flip(1)).mean(-1).view(len(y), 1, *y.shape[2:])
        alike = F.cosine_similarity(y, y.flip(3), dim=1)[:, None] + torch.linalg.vecdot(y, y.flip(2), dim=1)[:, None]
        return y * (far + alike) + F.cosine_similarity(y, y.flip(2), dim=-1)[..., None]

    return case(between(step), FREE)


@habit
def writes_at_pixels() -> RuleCase:
    def step(n: Any, y: Tensor) -> Tensor:
        at = torch.tensor([0, 3])
        y = y.index_add(3, at, y[..., 1:3]).index_copy(2, at, y[:, :, 4:6]).index_fill(3, at + 1, 0.5)
        y = y.slice_scatter(y[:, :, :2] * 2, 2, 0, 2).select_scatter(y[:, :, 0] * 2, 2, 3)
        y[:, :, at, at] = y[:, :, at, at + 1]
        mask = torch.zeros(y.shape[2:], dtype=torch.bool)
        mask[5:] = True
        y[:, :, mask] = 0.1
        return y

    return case(between(step), FREE)


@habit
def every_second_channel() -> RuleCase:
    return case(between(lambda n, y: torch.cat([y[:, ::2], y[:, 1::2]], 1)), {"a": 8, "b": 8})


@habit
def largest_of_all_channels() -> RuleCase:
    """The map of spatial attention: which channel is the largest nobody asks."""

    def step(n: Any, y: Tensor) -> Tensor:
        return y * torch.sigmoid(n.c(torch.cat([y.max(1, keepdim=True)[0], y.sum(1, keepdim=True)], 1)))

    return case(between(step, c=conv(2, 1)), FREE, {"c": "spreads one channel"})


@habit
def products_of_channels() -> RuleCase:
    """Channel attention: each channel is a mixture of all, by their products."""

    def step(n: Any, y: Tensor) -> Tensor:
        rows = y.flatten(2)
        return (0.1 * (rows @ rows.mT) @ rows).view(y.shape) + y

    return case(between(step), FREE)


@habit
def bilinear_layer() -> RuleCase:
    def forward(n: Any, x: Tensor) -> Tensor:
        y = F.relu(n.a(x.flatten(2).mT))
        return n.fc(F.relu(n.pair(y.mean(1), y.amax(1))))  # type: ignore[no-any-return]

    net = Net(forward, a=nn.Linear(3, 16), pair=nn.Bilinear(16, 16, 8), fc=linear(8))
    return case(net, {"a": 16, "pair": 8}, counted=False)


# --- message passing -----------------------------------------------------------------------------------------------
@habit
def messages_that_are_summed() -> RuleCase:
    def step(n: Any, x: Tensor, source: Tensor, target: Tensor) -> Tensor:
        total = torch.zeros(x.size(0), x.size(1)).index_add_(0, target, x[source])
        count = torch.zeros(x.size(0)).index_add(0, target, torch.ones(target.size(0)))
        return total / count[:, None] + x

    return case(graph_network(step), FREE, inputs=nodes())


@habit
def messages_that_are_scattered() -> RuleCase:
    def step(n: Any, x: Tensor, source: Tensor, target: Tensor) -> Tensor:
        sent = F.relu(n.m(torch.cat([x[source], x[target]], -1)))
        index = target[:, None].expand(-1, sent.size(-1))
        mean = sent.new_zeros(len(x), sent.size(1)).scatter_reduce(0, index, sent, "mean", include_self=False)
        return mean + torch.zeros_like(mean).scatter_add(0, target[:, None].expand_as(sent), sent)

    return case(graph_network(step, 12, m=nn.Linear(32, 12)), {"a": 16, "m": 12, "b": 8}, inputs=nodes())


@habit
def messages_by_a_sparse_matrix() -> RuleCase:
    def step(n: Any, x: Tensor, source: Tensor, target: Tensor) -> Tensor:
        adjacency = torch.sparse_coo_tensor(torch.stack([target, source]), torch.ones(len(source)), (len(x), len(x)))
        return torch.sparse.mm(adjacency, x)

    return case(graph_network(step), FREE, inputs=nodes(), counted=False)


# --- computed weights ----------------------------------------------------------------------------------------------
@habit
def weight_norm_of_torch() -> RuleCase:
    net = Net(
        lambda n, x: n.fc(F.relu(n.b(F.relu(n.a(x)))).mean((2, 3))),
        a=parametrizations.weight_norm(conv(3, 16)), b=parametrizations.weight_norm(conv(16, 8)), fc=linear(8),
    )  # fmt: skip
    return case(net, FREE)


@habit
def weight_norm_over_taps() -> RuleCase:
    """As the positional convolution of wav2vec 2.0: one length for each tap, over all channels that are left."""
    pos = parametrizations.weight_norm(nn.Conv1d(8, 8, 3, padding=1, groups=2), dim=2)
    net = Net(
        lambda n, x: n.fc(F.relu(n.b((y := F.relu(n.a(x.flatten(2).mT)).mT) + n.pos(y)).mean(-1))),
        a=nn.Linear(3, 8), pos=pos, b=nn.Conv1d(8, 6, 1), fc=linear(6),
    )  # fmt: skip
    return case(net, {"a": 4, "b": 6})


class Splines(nn.Module):
    """A layer of a Kolmogorov-Arnold network: radial bases on a grid with a row for every input."""

    def __init__(self, before: int, after: int, knots: int = 5) -> None:
        super().__init__()
        self.grid = nn.Buffer(torch.linspace(-2, 2, knots).repeat(before, 1))
        self.base = nn.Parameter(torch.randn(after, before) * 0.2)
        self.spline = nn.Parameter(torch.randn(after, before, knots) * 0.1)
        self.scale = nn.Parameter(torch.rand(after, before) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        bases = torch.exp(-((x.unsqueeze(-1) - self.grid) ** 2)).flatten(1)
        weight = (self.spline * self.scale.unsqueeze(-1)).view(len(self.base), -1)
        return F.linear(F.silu(x), self.base) + F.linear(bases, weight)


@habit
def splines_of_a_kan() -> RuleCase:
    net = Net(lambda n, x: n.c(n.b(n.a(x.flatten(1)))), a=Splines(6, 12), b=Splines(12, 8), c=Splines(8, 3))
    return case(net, {"a": 12, "b": 8}, inputs=image()[:, :1, :2, :3])


@habit
def masked_weight() -> RuleCase:
    """A mask of the weight's shape, as of an autoregressive network."""
    mask = nn.Buffer((torch.rand(8, 16, generator=torch.Generator().manual_seed(0)) > 0.3).float())
    net = Net(
        lambda n, x: n.fc(F.relu(F.linear(F.relu(n.a(x.flatten(2).mT)).mean(1), n.b.weight * n.mask, n.b.bias))),
        a=nn.Linear(3, 16), b=nn.Linear(16, 8), mask=mask, fc=linear(8),
    )  # fmt: skip
    return case(net, FREE)
