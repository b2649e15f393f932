"""Parts that train in ways of their own, branches over sequences, and parts of networks over images."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from composed_attention import Attention
from composed_sequences import WIDTH, Draw, Gate, a_sequence_norm
from torch import Tensor, nn

# ----------------------------------------------------------------------------------------- what only training shows


class Reversal(torch.autograd.Function):
    """Gradient reversal, as in adversarial domain adaptation."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return -0.5 * grads[0]


class Straight(torch.autograd.Function):
    """A sign whose gradient is that of a clipped identity, as in binary networks."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.sign()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0] * (ctx.saved_tensors[0].abs() <= 1)


class Habit(nn.Module):
    """An elementwise part whose training is not its evaluation, or whose gradient is not that of its value."""

    NAMES = (
        "dropout", "functional dropout", "alpha dropout", "feature alpha dropout", "rrelu", "functional rrelu",
        "reversal", "straight-through", "detached round", "no_grad", "detached half", "noise", "training only scale",
        "clamped in place", "channel dropout", "checkpoint",
    )  # fmt: skip

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        modules = {
            "dropout": nn.Dropout(0.3),
            "alpha dropout": nn.AlphaDropout(0.2),
            "feature alpha dropout": nn.FeatureAlphaDropout(0.2),
            "rrelu": nn.RReLU(),
            "channel dropout": nn.Dropout1d(0.3),
        }
        self.layer = modules.get(name)

    def forward(self, x: Tensor) -> Tensor:
        if self.layer is not None:
            return self.layer(x)  # type: ignore[no-any-return]
        if self.name == "functional dropout":
            return F.dropout(x, 0.3, self.training)
        if self.name == "functional rrelu":
            return F.rrelu(x, training=self.training)
        if self.name == "reversal":
            return Reversal.apply(x)  # type: ignore[no-any-return, no-untyped-call]
        if self.name == "straight-through":
            return Straight.apply(x)  # type: ignore[no-any-return, no-untyped-call]
        if self.name == "detached round":
            return x + ((2 * x).round() / 2 - x).detach()
        if self.name == "no_grad":
            with torch.no_grad():
                scale = 1 + x.abs().amax(-1, keepdim=True)
            return x / scale
        if self.name == "detached half":
            return 0.5 * x + 0.5 * x.detach().tanh()
        if self.name == "noise":
            return x + 0.1 * torch.randn_like(x) if self.training else x
        if self.name == "training only scale":
            return 2 * x if self.training else x
        if self.name == "checkpoint":
            return torch.utils.checkpoint.checkpoint(F.silu, x, use_reentrant=False)  # type: ignore[no-any-return]
        return F.leaky_relu(x).clamp_(-2, 2)


class Maybe(nn.Module):
    """Stochastic depth: in training the branch is left out now and then."""

    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:
        y = self.branch(x)
        if not self.training:
            return y  # type: ignore[no-any-return]
        keep = torch.rand(len(y), *[1] * (y.ndim - 1)) < 0.7
        return y * keep / 0.7  # type: ignore[no-any-return]


class OwnBatchNorm(nn.Module):
    """A batch norm through `F.batch_norm`, with buffers that no `nn.BatchNorm` owns."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        mean, var = self.running_mean, self.running_var
        return F.batch_norm(x, mean, var, self.weight, self.bias, self.training)  # type: ignore[arg-type]


class Counted(nn.Module):
    """Remembers a running mean of what it saw in training, and how often."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(1))
        self.register_buffer("level", torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            with torch.no_grad():
                self.seen += 1  # type: ignore[operator]
                self.level.mul_(0.9).add_(0.1 * x.abs().mean())  # type: ignore[operator, union-attr]
        return x / (0.5 + self.level)  # type: ignore[operator, no-any-return]


# ------------------------------------------------------------------------------------------- branches over sequences


class Torch(nn.Module):
    """nn.MultiheadAttention."""

    def __init__(self, draw: Draw) -> None:
        super().__init__()
        dropout = {"none": 0.0, "inside": 0.1}[draw.one("attention dropout", ("none", "none", "inside"))]
        self.first = draw.perhaps(0.7)
        self.attention = nn.MultiheadAttention(WIDTH, draw.rng.choice([2, 4]), dropout, batch_first=self.first)
        self.weights = draw.perhaps(0.4)

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.first else x.transpose(0, 1)
        y = self.attention(x, x, x, need_weights=self.weights)[0]
        return y if self.first else y.transpose(0, 1)  # type: ignore[no-any-return]


class Mlp(nn.Module):
    """Two linear layers and what is between them."""

    def __init__(self, draw: Draw) -> None:
        super().__init__()
        self.kind = draw.one("between", ("act", "act", "glu", "halves", "groups", "softmax", *Habit.NAMES))
        hidden = draw.rng.choice([12, 24])
        half = self.kind in ("glu", "halves")
        self.up, self.down = nn.Linear(WIDTH, hidden), nn.Linear(hidden // 2 if half else hidden, WIDTH)
        self.act = Habit(self.kind) if self.kind in Habit.NAMES else draw.rng.choice([nn.GELU, nn.ReLU, nn.Sigmoid])()
        self.soft = ChannelSoftmax(self.up) if self.kind == "softmax" else None
        if draw.perhaps(0.15):
            draw.habits.append("zero initialised layer")
            nn.init.zeros_(self.down.weight)
            nn.init.zeros_(self.down.bias)

    def forward(self, x: Tensor) -> Tensor:
        y = self.up(x)
        if self.kind == "glu":
            y = F.glu(y, -1)
        elif self.kind == "halves":
            a, b = y.chunk(2, -1)
            y = a * torch.sigmoid(b)
        elif self.kind == "groups":  # three parts side by side, each divided by its length
            parts = y.view(*y.shape[:-1], 3, -1)
            y = (parts / (1e-2 + parts.norm(dim=-1, keepdim=True))).flatten(-2)
        elif self.soft is not None:
            y = y * self.soft(y)
        else:
            y = self.act(y)
        return self.down(y)  # type: ignore[no-any-return]


class ChannelSoftmax(nn.Module):
    """A softmax over channels; `made_by` makes them with its rows."""

    def __init__(self, made_by: nn.Module) -> None:
        super().__init__()
        self.made_by = [made_by]

    def forward(self, x: Tensor) -> Tensor:
        return x.softmax(-1)


class Mixing(nn.Module):
    """What looks at several positions and is silent, or linear, where all are equal or there is one."""

    NAMES = (
        "less mean", "difference", "similarity", "similarity", "parts apart", "parts apart", "spread", "convolution",
        "depthwise", "excite", "cumsum",
    )  # fmt: skip

    def __init__(self, draw: Draw) -> None:
        super().__init__()
        self.kind = draw.one("mixing", self.NAMES)
        self.a, self.b = nn.Linear(WIDTH, 12), nn.Linear(12, WIDTH)
        if self.kind in ("convolution", "depthwise"):
            groups = 12 if self.kind == "depthwise" else draw.rng.choice([1, 3])
            self.layer = nn.Conv1d(12, 12, 3, padding=1, groups=groups)
        self.gate = nn.Linear(WIDTH, 12)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        if self.kind == "less mean":
            y = y - y.mean(1, keepdim=True)
        elif self.kind == "difference":
            y = F.pad(y[:, 1:] - y[:, :-1], (0, 0, 1, 0))
        elif self.kind == "similarity":  # in two parts: each has a similarity of its own
            parts = torch.stack(F.relu(y).view(*y.shape[:2], 2, -1).unbind(2), 1)
            y = ((parts @ parts.transpose(-1, -2)).softmax(-1) @ parts).transpose(1, 2).flatten(2)
        elif self.kind == "parts apart":  # each third is weighted with how far it is from its mean over positions
            parts = y.view(*y.shape[:2], 3, -1)
            away = parts - parts.mean(1, keepdim=True)
            y = (parts + away * away.square().sum(-1, keepdim=True)).flatten(2)
        elif self.kind == "spread":
            y = y * (y - y.mean(1, keepdim=True)).square().mean(1, keepdim=True)
        elif self.kind in ("convolution", "depthwise"):
            y = self.layer(y.transpose(1, 2)).transpose(1, 2)
        elif self.kind == "excite":
            y = y * torch.sigmoid(self.gate(x.mean(1))).unsqueeze(1)
        else:
            y = y.cumsum(1) / torch.arange(1, y.shape[1] + 1, dtype=y.dtype).unsqueeze(-1)
        return self.b(F.gelu(y))  # type: ignore[no-any-return]


class Recurrent(nn.Module):
    """A recurrent layer and back to the width of the stream."""

    def __init__(self, draw: Draw) -> None:
        super().__init__()
        self.kind = draw.one("recurrent", ("LSTM", "LSTM with dropout", "GRU", "GRU with dropout"))
        layers, dropout = (2, 0.4) if "dropout" in self.kind else (1, 0.0)
        both = draw.perhaps(0.3)
        kind = nn.LSTM if self.kind.startswith("LSTM") else nn.GRU
        self.layer = kind(WIDTH, 8, layers, batch_first=True, dropout=dropout, bidirectional=both)
        self.proj = nn.Linear(8 * (1 + both), WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(self.layer(x)[0])  # type: ignore[no-any-return]


class Block(nn.Module):
    """A branch beside the stream: norm before or after it, a gate, stochastic depth."""

    def __init__(self, draw: Draw, kind: str) -> None:
        super().__init__()
        kinds = {"attention": Attention, "torch": Torch, "mlp": Mlp, "mixing": Mixing, "recurrent": Recurrent}
        draw.habits.append(f"branch: {kind}")
        self.branch: nn.Module = kinds[kind](draw)
        reader = {"attention": "reader", "mlp": "up"}.get(kind)
        self.before = draw.perhaps(0.7)
        self.norm = a_sequence_norm(draw, getattr(self.branch, reader) if reader and self.before else None)
        if draw.perhaps(0.04):
            draw.habits.append("stochastic depth")
            self.branch = Maybe(self.branch)
        self.gate = Gate(draw)

    def forward(self, x: Tensor) -> Tensor:
        if self.before:
            return self.gate(x, self.branch(self.norm(x)))  # type: ignore[no-any-return]
        return self.norm(self.gate(x, self.branch(x)))  # type: ignore[no-any-return]
