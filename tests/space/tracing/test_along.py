"""What acts along other dimensions, beyond what the habits show: attention over channels, and forms that stay whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from habits import between
from nets import Net, classify, conv, image
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import autoprune

Step = Callable[[Any, Tensor], Tensor]


def traced(step: Step, **parts: nn.Module) -> autoprune.Space:
    torch.manual_seed(0)
    return autoprune.trace(between(step, **parts), image())


def channel_attention(n: Any, y: Tensor) -> Tensor:
    """As in the dual attention network: the softmax runs over channels that are left."""
    rows = y.flatten(2)
    energy = rows @ rows.mT
    energy = energy.max(-1, keepdim=True)[0].expand_as(energy) - energy
    return (energy.softmax(-1) @ rows).view(y.shape) + y


def linear_attention(n: Any, y: Tensor) -> Tensor:
    tokens = y.flatten(2).mT
    query, key = n.q(tokens).softmax(-1), n.k(tokens).softmax(1)
    return (query @ (key.mT @ tokens)).mT.reshape(y.shape)


@pytest.mark.parametrize(
    ("step", "parts"),
    [
        (channel_attention, {}),
        (linear_attention, {"q": nn.Linear(16, 12), "k": nn.Linear(16, 12)}),
        (lambda n, y: F.max_unpool2d(*F.max_pool2d(y, 2, return_indices=True), 2), {}),
        (lambda n, y: y + torch.cdist(y.flatten(2), y.flatten(2)).mean(-1)[..., None, None], {}),
        (lambda n, y: y * (y.flatten(2) @ torch.ones(36))[..., None, None], {}),
    ],
    ids=["channel attention", "linear attention", "unpooling", "distances of channels", "product with a vector"],
)
def test_channels_go_through(step: Step, parts: dict[str, nn.Module]) -> None:
    space = traced(step, **parts)
    widths = {group.name: group.width for group in space.groups}
    assert widths.pop("q", 12) == 12
    assert widths == {"a": 16, "b": 8}


@pytest.mark.parametrize(
    ("step", "told"),
    [
        (lambda n, y: torch.zeros_like(y).scatter(1, y.topk(4, 1)[1], 1.0), "topk runs across channels"),
        (lambda n, y: torch.fft.fft(y, dim=1).real, "fft_fft runs across channels"),
        (lambda n, y: y.index_add(1, torch.tensor([0, 1]), y[:, :2]), "index_add runs across channels"),
        (lambda n, y: y * (y.max(1)[1] % 3)[:, None], "the index of a channel"),
        (lambda n, y: y[:, torch.tensor([*range(8), *range(8)])], "indexing of channels"),
    ],
    ids=["largest channels", "spectrum of channels", "sum at channels", "which channel", "channels by number"],
)
def test_what_needs_all_channels_keeps_them_and_is_named(step: Step, told: str) -> None:
    space = traced(step)
    assert [group.name for group in space.groups if group.name != "b"] in ([], ["a"])
    frozen = {part.name: part.reason for part in space.frozen}
    assert told in frozen["a"]


def test_spectral_norm_is_over_what_is_left() -> None:
    torch.manual_seed(0)

    def forward(n: Any, x: Tensor) -> Tensor:
        return classify(n, F.relu(n.b(F.relu(n.a(x)))))

    norm = parametrizations.spectral_norm
    net = Net(forward, a=norm(conv(3, 16)), b=norm(conv(16, 8)), fc=nn.Linear(8, 5)).eval()
    space = autoprune.trace(net, image())
    assert {group.name: group.width for group in space.groups} == {"a": 16, "b": 8}
    cut: Any = space.slice(net, space.uniform(0.5)).eval()
    original, left, right = (
        getattr(cut.b.parametrizations.weight, "original"),  # noqa: B009 - a parametrization's own name
        cut.b.parametrizations.weight[0]._u,
        cut.b.parametrizations.weight[0]._v,
    )
    assert cut.b.weight.shape == (4, 8, 3, 3)
    torch.testing.assert_close(cut.b.weight, original / (left @ original.flatten(1) @ right))


@pytest.mark.parametrize("per_channel", [False, True])
def test_fake_quantisation_is_cut_with_its_scales(per_channel: bool) -> None:
    def quantised(weight: Tensor, n: Any) -> Tensor:
        if per_channel:
            return torch.fake_quantize_per_channel_affine(weight, n.scale, n.zero, 0, -128, 127)
        return torch.fake_quantize_per_tensor_affine(weight, 0.01, 0, -128, 127)

    def forward(n: Any, x: Tensor) -> Tensor:
        return classify(n, F.relu(F.conv2d(F.relu(n.a(x)), quantised(n.b.weight, n), n.b.bias, padding=1)))

    torch.manual_seed(0)
    scale, zero = torch.rand(8) * 0.01 + 0.01, torch.zeros(8, dtype=torch.int32)
    net = Net(forward, a=conv(3, 16), b=conv(16, 8), scale=scale, zero=zero, fc=nn.Linear(8, 5))
    assert {g.name: g.width for g in autoprune.trace(net, image()).groups} == {"a": 16, "b": 8}


def test_a_rule_that_fails_keeps_its_channels_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from autoprune.space.tracing.rules import RULES, OperatorRule

    def fails(graph: Any, call: Any) -> Any:
        raise KeyError("input")

    monkeypatch.setitem(RULES, "flip", OperatorRule(fails))
    frozen = {part.name: part.reason for part in traced(lambda n, y: y.flip(2)).frozen}
    assert "its rule does not know this form of it (KeyError: 'input')" in frozen["a"]
