"""Parts that mix tokens otherwise than attention does: state spaces, deformable sampling, banks of experts."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from attention_nets import DIM, HEADS, Tokens, tokens
from torch import Tensor, nn

from autoprune.testing.rules import Build, RuleCase, RuleContract

INSIDE, STATES = 10, 3


class StateSpace(nn.Module):
    """A selective scan, written out, as in Mamba."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.Linear(DIM, 2 * INSIDE), nn.Linear(INSIDE, DIM)
        self.steps, self.wide = nn.Linear(INSIDE, 2 + 2 * STATES), nn.Linear(2, INSIDE)
        self.log, self.skip = nn.Parameter(torch.rand(INSIDE, STATES)), nn.Parameter(torch.rand(INSIDE))

    def forward(self, x: Tensor) -> Tensor:
        z, gate = self.before(x).chunk(2, -1)
        step, b, c = self.steps(z).split([2, STATES, STATES], -1)
        step = F.softplus(self.wide(step))
        kept = (step[..., None] * -self.log.exp()).exp()
        added = step[..., None] * b[:, :, None] * z[..., None]
        state, made = torch.zeros(len(x), INSIDE, STATES), []
        for t in range(x.shape[1]):
            state = kept[:, t] * state + added[:, t]
            made.append((state * c[:, t, None]).sum(-1))
        return self.after((torch.stack(made, 1) + z * self.skip) * F.silu(gate))  # type: ignore[no-any-return]


class Deformable(nn.Module):
    """Values sampled at learned places, heads folded into the batch, as in Deformable DETR."""

    def __init__(self) -> None:
        super().__init__()
        self.value, self.proj = nn.Linear(DIM, DIM), nn.Linear(DIM, DIM)
        self.places, self.weights = nn.Linear(DIM, HEADS * 4), nn.Linear(DIM, HEADS * 2)

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        at = torch.linspace(-1, 1, t).view(1, t, 1, 1, 1) + 0.1 * self.places(x).view(n, t, HEADS, 2, 2)
        weights = self.weights(x).view(n, t, HEADS, 2).softmax(-1).transpose(1, 2).reshape(n * HEADS, 1, t, 2)
        values = self.value(x).transpose(1, 2).reshape(n * HEADS, DIM // HEADS, 1, t)
        sampled = F.grid_sample(values, at.transpose(1, 2).flatten(0, 1), align_corners=False)
        return self.proj((sampled * weights).sum(-1).view(n, DIM, t).transpose(1, 2))  # type: ignore[no-any-return]


class Experts(nn.Module):
    """All experts at once, weighted by a router."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(DIM, 3)
        self.up, self.down = (nn.Parameter(torch.randn(shape) * 0.3) for shape in ((3, DIM, 8), (3, 8, DIM)))

    def forward(self, x: Tensor) -> Tensor:
        flat, shares = x.flatten(0, 1), self.router(x).softmax(-1).flatten(0, 1)
        inside = F.relu(torch.bmm(flat[None].expand(3, -1, -1), self.up))
        return (torch.bmm(inside, self.down) * shares.t()[..., None]).sum(0).view_as(x)


@torch.library.custom_op("autoprune_tests::grouped_mm_fallback", mutates_args=())
def grouped_mm(input: Tensor, weight: Tensor, offs: Tensor) -> Tensor:  # noqa: A002 - its names are looked up
    """As the operator of transformers: rows up to each offset are multiplied by the weight of one expert."""
    made, start = input.new_zeros(len(input), weight.shape[2]), 0
    for expert, end in enumerate(offs.tolist()):
        made[start:end] = input[start:end] @ weight[expert]
        start = end
    return made


@grouped_mm.register_fake
def _(input: Tensor, weight: Tensor, offs: Tensor) -> Tensor:  # noqa: A002
    return input.new_empty(len(input), weight.shape[2])


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
    given, weight, offs = ctx.saved_tensors
    number = torch.searchsorted(offs, torch.arange(len(given)), right=True)
    back = torch.einsum("nf,ndf->nd", grad, weight[number])
    each = torch.einsum("nd,nf->ndf", given, grad)
    return back, torch.zeros_like(weight).index_add(0, number, each), None


grouped_mm.register_autograd(_backward, setup_context=_keep)


class SortedExperts(nn.Module):
    """Every token by the expert of its place, rows sorted by expert, as transformers does it."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = (nn.Parameter(torch.randn(shape) * 0.3) for shape in ((3, 16, DIM), (3, DIM, 8)))

    def forward(self, x: Tensor) -> Tensor:
        flat, offs = x.flatten(0, 1), torch.tensor([3, 4, 10])
        value, gate = grouped_mm(flat, self.up.transpose(1, 2), offs).chunk(2, -1)
        return grouped_mm(value * gate.sigmoid(), self.down.transpose(1, 2), offs).view(x.shape)


class TorchExperts(SortedExperts):
    """The same by torch's kernel, which takes rows of 16 bytes only."""

    def forward(self, x: Tensor) -> Tensor:
        flat, expert = x.flatten(0, 1), torch.arange(10) % 3
        order, ends = expert.argsort(stable=True), torch.bincount(expert, minlength=3).cumsum(0).to(torch.int32)
        rows = torch._grouped_mm(flat[order], self.up.transpose(1, 2), offs=ends)
        value, gate = rows.chunk(2, -1)
        made = torch._grouped_mm(value * gate.sigmoid(), self.down.transpose(1, 2), offs=ends)
        return torch.zeros_like(flat).index_copy(0, order, made).view(x.shape)


class TestMixers(RuleContract):
    random_cuts = 2
    cases: dict[str, Build] = {  # noqa: RUF012 - a class variable of the contract
        "state space": lambda: RuleCase(
            Tokens(StateSpace()),
            tokens(),
            {"embed": DIM, "part.before": INSIDE, "part.steps": 2, "part.after": DIM},
            {"part.steps": "spreads one channel over all others"},
        ),
        "deformable": lambda: RuleCase(
            Tokens(Deformable()), tokens(), {"embed": DIM, "part.places": HEADS, "part.proj": DIM}
        ),
        "experts": lambda: RuleCase(
            Tokens(Experts()),
            tokens(),
            {"embed": DIM, "part": 8},
            {"part.router": "spreads one channel over all others"},
            counted=False,
        ),
        "sorted experts": lambda: RuleCase(
            Tokens(SortedExperts()), tokens(), {"embed": DIM, "part": 8, "part#2": DIM}, counted=False
        ),
        "experts of torch": lambda: RuleCase(
            Tokens(TorchExperts()), tokens(), {"embed": DIM // 4, "part": 2}, counted=False
        ),
    }
