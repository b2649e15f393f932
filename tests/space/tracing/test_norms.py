"""Norms: a statistic over channels runs over those that survive, whoever writes it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from attention_nets import Tokens, tokens
from habits import between
from nets import image, parameter
from torch import Tensor, nn

from autoprune.testing.masking import Statistic
from autoprune.testing.rules import Build, RuleCase, RuleContract, tried

FREE = {"a": 16, "b": 8}


def over_survivors(function: Statistic) -> Statistic:
    """The module's own arithmetic on the surviving channels alone, put back between zeros."""

    def replaced(norm: nn.Module, x: Tensor, kept: Tensor) -> Tensor:
        dim = norm.dim  # type: ignore[attr-defined]
        places = kept.flatten().nonzero().flatten()
        return torch.zeros_like(x).index_copy(dim, places, function(norm, x.index_select(dim, places), places))  # type: ignore[arg-type]

    return replaced


class HandRms(nn.Module):
    """Root mean square norm over the last dimension, in single precision, as in Llama."""

    dim = -1

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = parameter(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = x.float()
        return self.scale * (y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-6)).to(x.dtype)


class HandLayerNorm(nn.Module):
    """Layer norm over dimension 1 of maps, as in ConvNeXt."""

    dim = 1

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale, self.shift = parameter(channels), parameter(channels)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        variance = (x - mean).pow(2).mean(1, keepdim=True)
        x = (x - mean) / torch.sqrt(variance + 1e-6)
        return self.scale[:, None, None] * x + self.shift[:, None, None]


class UnbiasedNorm(HandLayerNorm):
    """Mean and unbiased standard deviation over the last dimension, as in the annotated transformer."""

    dim = -1

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-6) + self.shift


class ByVarMean(HandLayerNorm):
    """`torch.var_mean` over dimension 1."""

    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(x, dim=1, keepdim=True, correction=0)
        return self.scale[:, None, None] * (x - mean) * (variance + 1e-5).rsqrt() + self.shift[:, None, None]


class Response(HandLayerNorm):
    """Global response norm, as in ConvNeXt V2: each map's norm over the mean norm of all maps."""

    def forward(self, x: Tensor) -> Tensor:
        norm = x.norm(p=2, dim=(2, 3), keepdim=True)
        scaled = x * (norm / (norm.mean(1, keepdim=True) + 1e-6))
        return self.scale[:, None, None] * scaled + self.shift[:, None, None] + x


def by_hand(norm: nn.Module, x: Tensor, places: Tensor) -> Tensor:
    """The hand-written norm itself, with the scales of the surviving channels."""
    narrow = type(norm)(len(places))  # type: ignore[call-arg]
    for name, tensor in norm.named_parameters():
        setattr(narrow, name, nn.Parameter(tensor[places]))
    return narrow(x)  # type: ignore[no-any-return]


def maps(norm: nn.Module, *, scale: str | None = None, **settings: object) -> RuleCase:
    """A norm between two convolutions; `scale` names the parameter of a hand-written one."""
    statistics = {"norm": (f"norm.{scale}", over_survivors(by_hand))} if scale else {}  # type: ignore[arg-type]
    net = between(lambda n, y: n.norm(y), norm=norm)  # type: ignore[operator]
    return RuleCase(net, image(), **{"groups": FREE, "statistics": statistics, **settings})  # type: ignore[arg-type]


def sequence(norm: nn.Module, *, scale: str | None = None) -> RuleCase:
    """A norm of tokens."""
    statistics = {"part": (f"part.{scale}", over_survivors(by_hand))} if scale else {}  # type: ignore[arg-type]
    return RuleCase(Tokens(norm), tokens(), {"embed": 16}, statistics=statistics)


def layer_norm_in_the_middle() -> RuleCase:
    """Dimensions are swapped for torch's layer norm and back."""
    net = between(lambda n, y: n.norm(y.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), norm=nn.LayerNorm(16))  # type: ignore[operator]
    return RuleCase(net, image(), FREE)


def unit_length() -> RuleCase:
    """`F.normalize` over channels: zeros add nothing to a length."""
    net = between(lambda n, y: F.normalize(y, dim=1))
    return RuleCase(net, image(), FREE)


CASES: dict[str, Build] = {
    "batch": lambda: maps(nn.BatchNorm2d(16)),
    "instance": lambda: maps(nn.InstanceNorm2d(16, affine=True)),
    "instance, with statistics": lambda: maps(nn.InstanceNorm2d(16, affine=True, track_running_stats=True)),
    "layer": lambda: sequence(nn.LayerNorm(16)),
    "layer, without shift": lambda: sequence(nn.LayerNorm(16, bias=False)),
    "layer, channels last": layer_norm_in_the_middle,
    "layer, over maps": lambda: maps(nn.LayerNorm([16, 6, 6])),
    "root mean square": lambda: sequence(nn.RMSNorm(16)),
    "root mean square, eps": lambda: sequence(nn.RMSNorm(16, eps=1e-5)),
    "group, whole groups go": lambda: maps(nn.GroupNorm(8, 16), groups={"a": 8, "b": 8}),
    "group, groups get narrower": lambda: maps(nn.GroupNorm(2, 16), groups={"a": 8, "b": 8}),
    "group, a single one": lambda: maps(nn.GroupNorm(1, 16)),
    "group, one for each channel": lambda: maps(nn.GroupNorm(16, 16)),
    "root mean square by hand": lambda: sequence(HandRms(16), scale="scale"),
    "layer norm of maps by hand": lambda: maps(HandLayerNorm(16), scale="scale"),
    "unbiased by hand": lambda: sequence(UnbiasedNorm(16), scale="scale"),
    "var_mean": lambda: maps(ByVarMean(16), scale="scale"),
    "response": lambda: maps(Response(16), scale="scale"),
    "unit length": unit_length,
}


class TestNorms(RuleContract):
    cases = CASES


def test_norms_inside_heads_keep_heads_whole() -> None:
    """Twelve channels in three heads: a norm over the four of each lets whole heads go."""

    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(4)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(x.unflatten(-1, (-1, 4))).flatten(-2)  # type: ignore[no-any-return]

    def build() -> RuleCase:
        return RuleCase(Tokens(Heads(), 12), tokens())

    (group,) = tried(build).space.groups
    assert group.width == 3


def test_a_norm_over_pixels_only_says_nothing_about_channels() -> None:
    def build() -> RuleCase:
        return RuleCase(between(lambda n, y: n.norm(y), norm=nn.LayerNorm([6, 6])), image())  # type: ignore[operator]

    assert {g.name: g.width for g in tried(build).space.groups} == FREE


def test_convolutions_with_standardised_weights() -> None:
    """Scaled by mean and deviation of each filter: a filter that loses inputs is standardised over what is left."""

    class Standardised(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            mean = self.weight.mean((1, 2, 3), keepdim=True)
            deviation = self.weight.std((1, 2, 3), keepdim=True)
            return F.conv2d(x, (self.weight - mean) / (deviation + 1e-5), self.bias, padding=1)

    def build() -> RuleCase:
        return RuleCase(between(lambda n, y: n.c(y), c=Standardised(16, 16, 3)), image())  # type: ignore[operator]

    assert {g.name: g.width for g in tried(build).space.groups} == {"a": 16, "c": 16, "b": 8}
