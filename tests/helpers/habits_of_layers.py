"""Habits of layers: products, gates, shuffles, foldings; how a model is called and what its tensors are."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from habits import FREE, between, both, case, habit, linear
from nets import Net, classify, conv, image, parameter
from torch import Tensor, nn

from autoprune.testing.rules import RuleCase


def vectors(width: int = 7) -> Tensor:
    return torch.randn(4, width, generator=torch.Generator().manual_seed(0))


# --- products ------------------------------------------------------------------------------------------------------
@habit
def matmul_with_a_parameter() -> RuleCase:
    net = Net(lambda n, x: n.fc(F.relu(x @ n.w) @ n.v), w=parameter(7, 16), v=parameter(16, 8), fc=linear(8))
    return case(net, {"w": 16, "v": 8}, {}, vectors())


@habit
def addmm_with_parameters() -> RuleCase:
    net = Net(
        lambda n, x: n.fc(F.relu(torch.addmm(n.c, n.a(x), n.w))),
        a=nn.Linear(7, 16), w=parameter(16, 8), c=parameter(8), fc=linear(8),
    )  # fmt: skip
    return case(net, {"a": 16, "w": 8}, {}, vectors())


@habit
def gram_matrix() -> RuleCase:
    """Products of all channels with all: both sides of the result are channels."""

    def forward(n: Any, x: Tensor) -> Tensor:
        y = n.a(x).flatten(2)
        return n.fc(torch.bmm(y, y.transpose(1, 2)).sum((1, 2), keepdim=True).flatten(1) + n.b(x).mean((2, 3)))  # type: ignore[no-any-return]

    net = Net(forward, a=conv(3, 16), b=conv(3, 8), fc=linear(8))
    return case(net, {"a": 16, "b": 8})


@habit
def einsum_over_positions() -> RuleCase:
    """A weight mixes pixels, channels pass."""
    net = between(lambda n, y: torch.einsum("nchw,hk->nckw", y, n.w), w=parameter(6, 6))
    return case(net, FREE)


@habit
def einsum_over_channels() -> RuleCase:
    net = between(lambda n, y: torch.einsum("nchw,dc->ndhw", y, n.w), 12, w=parameter(12, 16))
    return case(net, {"a": 16, "w": 12, "b": 8})


@habit
def two_towers() -> RuleCase:
    """Rows of one tower times columns of the other: both have the same channels."""

    def forward(n: Any, x: Tensor, y: Tensor) -> Tensor:
        return n.p(x) @ n.q(y).T  # type: ignore[no-any-return]

    net = Net(forward, p=nn.Linear(7, 16), q=nn.Linear(9, 16))
    return case(net, {"p": 16}, {}, (vectors(), vectors(9)))


# --- gates and activations -----------------------------------------------------------------------------------------
@habit
def one_slope_for_each_channel() -> RuleCase:
    return case(between(lambda n, y: n.act(y - 1), act=nn.PReLU(16)), FREE)  # type: ignore[operator]


@habit
def one_slope_for_all() -> RuleCase:
    return case(between(lambda n, y: n.act(y - 1), act=nn.PReLU()), FREE)  # type: ignore[operator]


@habit
def gated_linear_unit() -> RuleCase:
    return case(between(lambda n, y: F.glu(y, 1), 8), {"a": 8, "b": 8})


@habit
def gated_by_another_layer() -> RuleCase:
    def forward(n: Any, x: Tensor) -> Tensor:
        return n.fc(n.down(F.silu(n.gate(x)) * n.up(x)))  # type: ignore[no-any-return]

    net = Net(forward, gate=nn.Linear(7, 16), up=nn.Linear(7, 16), down=nn.Linear(16, 8), fc=linear(8))
    return case(net, {"gate": 16, "down": 8}, {}, vectors())


@habit
def bounds_in_place() -> RuleCase:
    return case(between(lambda n, y: F.hardtanh_(F.hardswish(y), 0.0, 6.0)), FREE)


# --- shuffles and foldings -----------------------------------------------------------------------------------------
@habit
def channel_shuffle() -> RuleCase:
    """The grouped convolution ties whole groups before the shuffle, whose own number of groups is baked in."""
    net = between(lambda n, y: n.g(F.channel_shuffle(y, 4)), g=conv(16, 16, groups=4))  # type: ignore[operator]
    return case(net, {"g": 4, "b": 8}, {"a": "differs"})


@habit
def channel_shuffle_by_views() -> RuleCase:
    def step(n: Any, y: Tensor) -> Tensor:
        b, c, h, w = y.shape
        return y.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)

    return case(between(step), {"a": 8, "b": 8})


@habit
def pixels_to_channels() -> RuleCase:
    return case(between(lambda n, y: F.pixel_unshuffle(y, 2), 64), FREE)


@habit
def patches_by_unfold() -> RuleCase:
    net = Net(
        lambda n, x: n.fc(n.l(F.unfold(n.a(x), 2, stride=2).transpose(1, 2)).mean(1)),
        a=conv(3, 8),
        l=linear(32, 9),
        fc=linear(9),
    )
    return case(net, {"a": 8, "l": 9})


@habit
def fold_back() -> RuleCase:
    net = between(lambda n, y: F.fold(F.unfold(y, 2, stride=2) * 2, (6, 6), 2, stride=2))
    return case(net, FREE)


@habit
def bilinear_resize() -> RuleCase:
    return case(between(lambda n, y: F.interpolate(y, (9, 9), mode="bilinear", align_corners=False)), FREE)


@habit
def padded_shortcut() -> RuleCase:
    """ResNet's option A: half of the pixels, and zeros for the channels that are missing."""
    net = both(
        lambda n, x: n.b(n.a(x)[:, :, ::2, ::2]) + F.pad(n.a(x)[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4)),
        a=conv(3, 8),
        b=conv(8, 16),
    )
    return case(net, {"a": 8, "b": 4, "b#2": 4}, form="graph")


@habit
def first_channel_changed() -> RuleCase:
    """The first channel is always there."""
    net = between(lambda n, y: torch.cat([2 * y[:, :1], y[:, 1:]], 1))
    return case(net, {"a": 15, "b": 8}, {"a": "nothing but this channel"})


@habit
def slice_behind_the_first_channel() -> RuleCase:
    """Channels 0 and 4 to 15 have no reader at all."""
    net = between(lambda n, y: n.d(y[:, 1:4]), 4, d=conv(3, 4))  # type: ignore[operator]
    return RuleCase(net, image(), form="graph")


@habit
def stacked_and_taken_apart() -> RuleCase:
    def step(n: Any, y: Tensor) -> Tensor:
        one, other = torch.stack([y, -y], 1).unbind(1)
        return one.exp() - other

    return case(between(step), FREE)


# --- how a model is called -----------------------------------------------------------------------------------------
@habit
def inputs_by_name() -> RuleCase:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.fc = conv(3, 16), conv(3, 16), nn.Linear(16, 5)

        def forward(self, left: Tensor, right: Tensor | None = None, *, times: float = 1.0) -> dict[str, Tensor]:
            return {"logits": classify(self, self.a(left) + times * self.b(right))}

    return RuleCase(Named(), {"right": image() + 1, "left": image()}, {"a": 16})


@habit
def outputs_as_a_tuple() -> RuleCase:
    def forward(n: Any, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        y = n.a(x)
        return classify(n, n.b(y)), [y.sum(1), y.amax((2, 3)).sum()]

    return case(Net(forward, a=conv(3, 16), b=conv(16, 8), fc=linear(8)), FREE)


@habit
def structured_inputs() -> RuleCase:
    def forward(n: Any, pair: tuple[Tensor, Tensor], more: dict[str, Tensor]) -> Tensor:
        return classify(n, n.a(pair[0]) + n.b(pair[1]) + more["shift"])

    inputs = ((image(), image() + 1), {"shift": torch.ones(1)})
    return case(Net(forward, a=conv(3, 16), b=conv(3, 16), fc=linear(16)), {"a": 16}, {}, inputs)


# --- what tensors are ----------------------------------------------------------------------------------------------
@habit
def frozen_layer() -> RuleCase:
    net = between(lambda n, y: n.c(y), c=conv(16, 16))  # type: ignore[operator]
    net.a.requires_grad_(False)  # type: ignore[union-attr]
    return case(net, {**FREE, "c": 16})


@habit
def half_precision() -> RuleCase:
    net = between(lambda n, y: n.bn(n.c(y)), c=conv(16, 16), bn=nn.BatchNorm2d(16))  # type: ignore[operator]
    return RuleCase(net.bfloat16(), image().bfloat16(), {**FREE, "c": 16})


@habit
def double_precision() -> RuleCase:
    return RuleCase(between(lambda n, y: n.c(y), c=conv(16, 16)).double(), image().double(), {**FREE, "c": 16})  # type: ignore[operator]


@habit
def buffer_outside_of_the_state() -> RuleCase:
    net = both(lambda n, x: n.k * n.a(x))  # type: ignore[operator]
    net.register_buffer("k", torch.rand(16, 1, 1), persistent=False)
    return case(net, {"a": 16})


@habit
def constant_from_outside() -> RuleCase:
    """A tensor that is no part of the module has the size it has."""
    scale = torch.rand(1, 16, 1, 1)
    net = between(lambda n, y: n.c(y * scale), c=conv(16, 16))  # type: ignore[operator]
    return case(net, {"c": 16, "b": 8}, {"a": "size is fixed"})


@habit
def shared_block() -> RuleCase:
    """One block three times in a row, with its norm."""
    block = nn.Sequential(conv(16, 16), nn.BatchNorm2d(16), nn.ReLU())
    return case(between(lambda n, y: n.block(n.block(y) + n.block(y)), block=block), FREE)  # type: ignore[operator]
