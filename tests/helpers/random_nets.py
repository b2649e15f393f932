"""Small networks put together by chance from the habits of model code; every part is a module, every map 6 x 6."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIDE = 6
Rng = random.Random


class Do(nn.Module):
    """A function of maps without parameters."""

    def __init__(self, name: str, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self._name, self._function = name, function

    def forward(self, *maps: Tensor) -> Tensor:
        return self._function(*maps)

    def extra_repr(self) -> str:
        return self._name


class Shuffle(nn.Module):
    """Channel shuffle by views, the channel count read from the input or baked in."""

    def __init__(self, groups: int, channels: int | None) -> None:
        super().__init__()
        self.groups, self.channels = groups, channels

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        c = self.channels or c
        return x.view(n, self.groups, c // self.groups, h, w).transpose(1, 2).reshape(n, c, h, w)


class Gate(nn.Module):
    """Squeeze and excitation."""

    def __init__(self, width: int, hidden: int, linear: bool) -> None:
        super().__init__()
        self.linear = linear
        make = nn.Linear if linear else lambda a, b: nn.Conv2d(a, b, 1)
        self.down, self.up = make(width, hidden), make(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        y = x.mean((2, 3)) if self.linear else F.adaptive_avg_pool2d(x, 1)
        y = torch.sigmoid(self.up(F.relu(self.down(y))))
        return x * (y[:, :, None, None] if self.linear else y)


class Scaled(nn.Module):
    """A learned scale for every channel, or a learned map of positions."""

    def __init__(self, *shape: int, add: bool) -> None:
        super().__init__()
        self.scale, self.add = nn.Parameter(torch.randn(shape)), add

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale if self.add else x * self.scale


class HalfChanged(nn.Module):
    """One half goes through a layer, the other goes by; then both beside each other in either order."""

    def __init__(self, width: int, first: int, swapped: bool, baked: bool) -> None:
        super().__init__()
        self.first, self.swapped, self.baked = first, swapped, baked
        self.layer = nn.Conv2d(first, first, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        if self.baked:
            one, other = x[:, : self.first], x[:, self.first :]
        else:
            one, other = x.split([self.first, x.shape[1] - self.first], 1)
        parts = [F.relu(self.layer(one)), other]
        return torch.cat(parts[::-1] if self.swapped else parts, 1)


class Last(nn.Module):
    """A module of the last dimension, applied to channels."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        y = self.module(x.permute(0, 2, 3, 1))
        return (y[0] if isinstance(y, tuple) else y).permute(0, 3, 1, 2)


class Recurrent(nn.Module):
    """A recurrent layer over the positions of a map."""

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.layer(x.flatten(2).transpose(1, 2))
        return y.transpose(1, 2).unflatten(2, (SIDE, SIDE))  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Attention between positions, added to the map or not."""

    def __init__(self, width: int, heads: int, style: str, added: bool) -> None:
        super().__init__()
        self.heads, self.style, self.added, self.head_dim = heads, style, added, width // heads
        self.norm, self.proj = nn.LayerNorm(width), nn.Linear(width, width)
        if style == "torch":
            self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        elif style == "fused":
            self.qkv = nn.Linear(width, 3 * width)
        else:
            self.q, self.k, self.v = (nn.Linear(width, width, bias=False) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        y = x.flatten(2).transpose(1, 2)
        z = self.norm(y)
        n, length, _ = z.shape
        if self.style == "torch":
            z = self.attention(z, z, z)[0]
        elif self.style == "fused":
            q, k, v = self.qkv(z).reshape(n, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            z = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, length, -1)
        else:
            q, k, v = (p(z).view(n, length, self.heads, -1).transpose(1, 2) for p in (self.q, self.k, self.v))
            z = ((q @ k.transpose(-1, -2)) * self.head_dim**-0.5).softmax(-1) @ v
            z = z.transpose(1, 2).flatten(2)
        z = self.proj(z)
        z = y + z if self.added else z
        return z.transpose(1, 2).unflatten(2, (SIDE, SIDE))  # type: ignore[no-any-return]


KINDS = (
    *["convolution"] * 3, "shuffle", "gate", "scale", "position", "half", "attention", "recurrent",
    "chunk product", "sum of halves", "sum of pairs", "depth to space", "space to depth", "pool", "repeat", "flip",
    "slice", "tanh", "mean added", "pad", "roll",
)  # fmt: skip
ACTIVATIONS = (nn.ReLU, nn.GELU, nn.SiLU, nn.Hardswish, nn.Sigmoid, lambda: nn.ReLU(inplace=True), nn.Identity)


def divisor(rng: Rng, width: int, least: int = 1) -> int:
    return rng.choice([d for d in range(least, width + 1) if width % d == 0])


def a_norm(rng: Rng, width: int) -> nn.Module:
    kind = rng.choice(["batch", "batch", "group", "layer", "rms", "instance", "none"])
    if kind == "group":
        return nn.GroupNorm(divisor(rng, width), width)
    if kind in ("layer", "rms"):
        return Last(nn.LayerNorm(width) if kind == "layer" else nn.RMSNorm(width))
    if kind == "none":
        return nn.Identity()
    return nn.BatchNorm2d(width) if kind == "batch" else nn.InstanceNorm2d(width, affine=True)


def a_convolution(rng: Rng, width: int) -> tuple[nn.Module, int]:
    kind = rng.choice(["plain", "plain", "grouped", "depthwise", "transposed", "linear"])
    out = rng.choice([4, 6, 8, 12])
    kernel = rng.choice([1, 3])
    settings = {"padding": kernel // 2, "bias": rng.random() < 0.5}
    layer: nn.Module
    if kind == "grouped":
        groups = divisor(rng, width)
        out = groups * rng.choice([1, 2, 3])
        layer = nn.Conv2d(width, out, kernel, groups=groups, **settings)
    elif kind == "depthwise":
        out = width * rng.choice([1, 1, 2])
        layer = nn.Conv2d(width, out, kernel, groups=width, **settings)
    elif kind == "transposed":
        groups = divisor(rng, width) if rng.random() < 0.3 else 1
        out = groups * rng.choice([2, 4])
        layer = nn.ConvTranspose2d(width, out, kernel, groups=groups, **settings)
    elif kind == "linear":
        layer = Last(nn.Linear(width, out))
    else:
        layer = nn.Conv2d(width, out, kernel, **settings)
    activation = nn.PReLU(out) if rng.random() < 0.15 else rng.choice(ACTIVATIONS)()
    return nn.Sequential(layer, a_norm(rng, out), activation), out


def a_change(rng: Rng, width: int) -> tuple[nn.Module, int] | None:
    """One map to one map; None where the width does not fit."""
    kind = rng.choice(KINDS)
    if kind == "convolution":
        return a_convolution(rng, width)
    if kind == "shuffle":
        groups = divisor(rng, width)
        return Shuffle(groups, rng.choice([None, width])), width
    if kind == "gate":
        return Gate(width, rng.choice([2, 3]), rng.random() < 0.5), width
    if kind == "scale":
        return Scaled(width, 1, 1, add=rng.random() < 0.5), width
    if kind == "position":
        return Scaled(1, width, SIDE, SIDE, add=True), width
    if kind == "half" and width >= 4:
        first = rng.choice([width // 2, width // 4])
        return HalfChanged(width, first, rng.random() < 0.5, rng.random() < 0.5), width
    if kind == "attention" and width % 2 == 0 and width <= 16:
        heads = divisor(rng, width // 2)
        return Attention(width, heads, rng.choice(["torch", "fused", "apart"]), rng.random() < 0.7), width
    if kind == "recurrent" and width <= 16:
        layer = rng.choice([nn.LSTM, nn.GRU])
        both = rng.random() < 0.3
        hidden = rng.choice([3, 4])
        return Recurrent(layer(width, hidden, rng.choice([1, 2]), batch_first=True, bidirectional=both)), hidden * (
            1 + both
        )
    return moved(rng, kind, width)


def moved(rng: Rng, kind: str, width: int) -> tuple[nn.Module, int] | None:
    """Changes without parameters; None where the width does not fit."""
    half, quarter = width // 2, width // 4
    start, length = rng.choice([0, 1]), rng.choice([half, width - 1])
    even, small = width % 2 == 0, width <= 8
    changes: dict[str, tuple[bool, Callable[[Tensor], Tensor], int]] = {
        "chunk product": (even, lambda x: torch.mul(*x.chunk(2, 1)), half),
        "sum of halves": (even, lambda x: x.view(len(x), 2, half, SIDE, SIDE).sum(1), half),
        "sum of pairs": (even, lambda x: x.view(len(x), half, 2, SIDE, SIDE).sum(2), half),
        "depth to space": (width % 4 == 0, lambda x: F.avg_pool2d(F.pixel_shuffle(x, 2), 2), quarter),
        "space to depth": (small, lambda x: F.interpolate(F.pixel_unshuffle(x, 2), scale_factor=2.0), 4 * width),
        "pool": (True, lambda x: F.interpolate(F.max_pool2d(x, 2), scale_factor=2.0), width),
        "repeat": (small, lambda x: x.repeat(1, 2, 1, 1), 2 * width),
        "flip": (True, lambda x: x.flip(1), width),
        "slice": (width >= 3, lambda x: x[:, start : start + length], min(length, width - start)),
        "tanh": (True, torch.tanh, width),
        "mean added": (True, lambda x: x + x.mean((2, 3), keepdim=True), width),
        "pad": (small, lambda x: F.pad(x, (0, 0, 0, 0, 2, 1)), width + 3),
        "roll": (True, lambda x: x.roll((1, 2), (2, 3)), width),
    }
    if kind not in changes or not changes[kind][0]:
        return None
    _, function, after = changes[kind]
    return Do(kind, function), after


def a_meeting(rng: Rng, widths: Sequence[int]) -> tuple[nn.Module, list[int], int]:
    """Several earlier maps to one: the module, which maps, its width."""
    chosen = [rng.randrange(len(widths)) for _ in range(rng.choice([2, 2, 3]))]
    alike = [i for i in range(len(widths)) if widths[i] == widths[chosen[0]] and i != chosen[0]]
    if alike and rng.random() < 0.7:
        pair = [chosen[0], rng.choice(alike)]
        if rng.random() < 0.7:
            return Do("sum", lambda a, b: a + b), pair, widths[pair[0]]
        return Do("gated", lambda a, b: a * torch.sigmoid(b)), pair, widths[pair[0]]
    if sum(widths[i] for i in chosen) > 32:
        chosen = chosen[:1]
    return Do("cat", lambda *maps: torch.cat(maps, 1)), chosen, sum(widths[i] for i in chosen)


class RandomNet(nn.Module):
    """Steps in a row, each from earlier maps; all maps that nobody reads are classified."""

    def __init__(self, seed: int, steps: int = 7) -> None:
        super().__init__()
        rng = Rng(seed)
        torch.manual_seed(seed)
        first, width = nn.Conv2d(3, 8, 3, padding=1), 8
        self.steps, self.sources, widths = nn.ModuleList([first]), [[-1]], [width]
        while len(self.steps) < steps:
            if rng.random() < 0.3 and len(widths) > 1:
                module, source, width = a_meeting(rng, widths)
            else:
                source = [rng.choice([len(widths) - 1, len(widths) - 1, rng.randrange(len(widths))])]
                made = a_change(rng, widths[source[0]])
                if made is None:
                    continue
                module, width = made
            self.steps.append(module)
            self.sources.append(source)
            widths.append(width)
        read = {i for source in self.sources for i in source}
        self.ends = [i for i in range(len(widths)) if i not in read]
        self.flat = rng.random() < 0.2
        self.fc = nn.Linear(sum(widths[i] for i in self.ends) * (SIDE**2 if self.flat else 1), 4)

    def forward(self, image: Tensor) -> Tensor:
        maps: list[Tensor] = []
        for step, source in zip(self.steps, self.sources, strict=True):
            maps.append(step(*(image if i < 0 else maps[i] for i in source)))
            if isinstance(step, nn.Sequential):
                maps[-1] = maps[-1][..., :SIDE, :SIDE]
        last = torch.cat([maps[i] for i in self.ends], 1)
        return self.fc(last.flatten(1) if self.flat else last.mean((2, 3)))  # type: ignore[no-any-return]
