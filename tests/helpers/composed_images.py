"""Parts of networks over images: convolutions, excitation, shuffles, attention between positions, heads."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from composed_attention import HEADS_CALLED
from composed_parts import Counted, Habit, OwnBatchNorm
from composed_sequences import Draw, Gate
from torch import Tensor, nn

CHANNELS, SIDE = 12, 6


def an_image_norm(draw: Draw, channels: int) -> nn.Module:
    name = draw.one(
        "norm",
        (
            "batch",
            "batch",
            "group",
            "instance",
            "instance with statistics",
            "own batch",
            "none",
            "cumulative",
            "bare instance",
        ),
    )
    made: dict[str, nn.Module] = {
        "batch": nn.BatchNorm2d(channels),
        "group": nn.GroupNorm(draw.rng.choice([1, 2, channels]), channels),
        "instance": nn.InstanceNorm2d(channels, affine=True),
        "instance with statistics": nn.InstanceNorm2d(channels, affine=True, track_running_stats=True),
        "own batch": OwnBatchNorm(channels),
        "cumulative": nn.BatchNorm2d(channels, momentum=None),
        "bare instance": nn.InstanceNorm2d(channels),
    }
    norm = made.get(name, nn.Identity())
    if name in ("batch", "own batch") and draw.perhaps(0.2):
        draw.habits.append("zero initialised norm")
        nn.init.zeros_(norm.weight)  # type: ignore[arg-type]
    return norm


class Excite(nn.Module):
    """Squeeze and excitation."""

    def __init__(self, draw: Draw, channels: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(channels, 4), nn.Linear(4, channels)
        self.back = draw.one("excitation back", ("view", "index"))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.sigmoid(self.up(F.relu(self.down(x.mean((2, 3))))))
        return x * (y.view(len(x), -1, 1, 1) if self.back == "view" else y[:, :, None, None])


class Where(nn.Module):
    """Attention to places from mean and maximum over channels (CBAM); `made_by` makes those with its rows."""

    def __init__(self, made_by: nn.Module) -> None:
        super().__init__()
        self.made_by, self.layer = [made_by], nn.Conv2d(2, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.weighted(x, x.mean(1, keepdim=True), x.amax(1, keepdim=True))

    def weighted(self, x: Tensor, mean: Tensor, most: Tensor) -> Tensor:
        return x * torch.sigmoid(self.layer(torch.cat([mean, most], 1)))  # type: ignore[no-any-return]


class Shuffle(nn.Module):
    """Channel shuffle."""

    def __init__(self, draw: Draw) -> None:
        super().__init__()
        self.groups, self.first = draw.rng.choice([2, 3]), draw.perhaps(0.5)

    def forward(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        shape = (n, self.groups, -1, h, w) if self.first else (n, -1, self.groups, h, w)
        return x.view(shape).transpose(1, 2).reshape(n, -1, h, w)


class Places(nn.Module):
    """Attention between positions behind a gate, as in SAGAN and DANet, in one head or several."""

    def __init__(self, draw: Draw, channels: int) -> None:
        super().__init__()
        heads, self.called = draw.rng.choice([1, 2, 4]), draw.rng.choice(HEADS_CALLED)
        setattr(self, self.called, heads)
        self.q, self.k = nn.Conv2d(channels, 8, 1), nn.Conv2d(channels, 8, 1)
        self.v, self.proj = nn.Conv2d(channels, 12, 1), nn.Conv2d(12, channels, 1)
        self.gate = Gate(draw, (channels, 1, 1))
        draw.habits.append(f"attention of places: {heads} heads")

    def forward(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        q, k, v = (f(x).view(n, getattr(self, self.called), -1, h * w) for f in (self.q, self.k, self.v))
        weights = (q.transpose(-1, -2) @ k).softmax(-1)
        y = (v @ weights.transpose(-1, -2)).reshape(n, -1, h, w)
        return self.gate(x, self.proj(y))  # type: ignore[no-any-return]


class Stage(nn.Module):
    """A convolution, a norm, an activation, and something more."""

    def __init__(self, draw: Draw, before: int) -> None:
        super().__init__()
        kind = draw.one("convolution", ("plain", "plain", "grouped", "separable", "branches", "residual"))
        after = before if kind == "residual" else CHANNELS
        groups = {"grouped": draw.rng.choice([2, 3, 4])}.get(kind, 1)
        groups = groups if before % groups == 0 else 1
        self.kind, self.after, self.drop = kind, after, None
        bias = draw.perhaps(0.5)
        if kind == "separable":
            self.deep = nn.Conv2d(before, before, 3, padding=1, groups=before, bias=bias)
        elif kind == "branches":
            self.side, self.after = nn.Conv2d(before, 6, 1), after + 6
        elif kind == "residual":
            self.gate = Gate(draw, (before, 1, 1))
        kernel = 1 if kind == "separable" else 3
        self.layer = nn.Conv2d(before, after, kernel, padding=kernel // 2, groups=groups, bias=bias)
        self.norm = an_image_norm(draw, after)
        habit = draw.one("activation", ("relu", "relu", "silu", "sigmoid", *Habit.NAMES, "counted", "channel dropout"))
        acts: dict[str, nn.Module] = {
            "relu": nn.ReLU(),
            "silu": nn.SiLU(),
            "sigmoid": nn.Sigmoid(),
            "counted": Counted(),
        }
        self.act = nn.Dropout2d(0.3) if habit == "channel dropout" else acts.get(habit) or Habit(habit)
        self.more = self.something(draw, after)

    def something(self, draw: Draw, channels: int) -> nn.Module:
        name = draw.one("then", ("nothing", "nothing", "excite", "where", "shuffle", "places", "places"))
        if name == "shuffle" and channels % 6 == 0:
            return Shuffle(draw)
        if name == "excite":
            return Excite(draw, channels)
        if name == "places":
            return Places(draw, channels)
        return Where(self.layer) if name == "where" else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.deep(x) if self.kind == "separable" else x
        y = self.more(self.act(self.norm(self.layer(y))))
        if self.kind == "branches":
            return torch.cat([y, self.side(x)], 1)
        return self.gate(x, y) if self.kind == "residual" else y  # type: ignore[no-any-return]


class ImageNet(nn.Module):
    """Stages, pooling now and then, a classifier with or without a baked size."""

    def __init__(self, draw: Draw) -> None:
        super().__init__()
        self.less = draw.one("image", ("as it is", "less a half", "times two"))
        self.stem, width = nn.Conv2d(3, CHANNELS, 3, padding=1), CHANNELS
        self.stages = nn.ModuleList()
        for _ in range(draw.rng.choice([1, 2, 2])):
            self.stages.append(Stage(draw, width))
            width = self.stages[-1].after
        self.end = draw.one("end", ("mean", "mean", "view", "baked", "baked", "flatten"))
        self.width, self.fc = width, nn.Linear(width * (1 if self.end == "mean" else 9), 5)

    def forward(self, image: Tensor) -> Tensor:
        x = {"as it is": image, "less a half": image - 0.5, "times two": 2 * image}[self.less]
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        if self.end == "mean":
            return self.fc(x.mean((2, 3)))  # type: ignore[no-any-return]
        x = F.max_pool2d(x, 2)
        if self.end == "baked":
            return self.fc(x.view(-1, self.width * 9))  # type: ignore[no-any-return]
        return self.fc(x.view(len(x), -1) if self.end == "view" else x.flatten(1))  # type: ignore[no-any-return]
