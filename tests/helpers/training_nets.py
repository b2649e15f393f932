"""Networks that do something else in training than in evaluation, or backward than forward; all need the graph form."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from nets import Net, conv
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint


class Reverse(Function):
    """Gradient reversal that hands its input through as it is."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return -ctx.factor * grads[0], None


class Sign(Function):
    """Straight-through estimator."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.sign()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return grads[0]


class Quantised(Function):
    """A weight on a grid, learned step size and all: two inputs, several saved tensors, `setup_context`."""

    @staticmethod
    def forward(weight: Tensor, step: Tensor) -> Tensor:
        return (weight / step).round() * step

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        weight, step = ctx.saved_tensors
        return grads[0] * (weight.abs() < 1), (grads[0] * (weight / step).round()).sum().reshape(step.shape)


class Doubled(Function):
    """Writes into its input, with a backward that is not that of doubling."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        return x.mul_(2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return 5 * grads[0]


class Halves(Function):
    """Two outputs, each with a backward of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        return x * 2, x + 1

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return 3 * grads[0] + 7 * grads[1]


class DropPath(nn.Module):
    """Stochastic depth, written out as everybody does."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        keep = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(0.5)
        return x * keep / 0.5


class Statistics(nn.Module):
    """A batch norm of one's own, over `F.batch_norm` or `F.instance_norm`."""

    def __init__(self, n: int, *, instance: bool = False, momentum: float = 0.3) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(n))
        self.register_buffer("var", torch.ones(n))
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))
        self.weight, self.bias = nn.Parameter(torch.ones(n)), nn.Parameter(torch.zeros(n))
        self.instance, self.momentum = instance, momentum

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen += 1
        norm = F.instance_norm if self.instance else F.batch_norm
        return norm(x, self.mean, self.var, self.weight, self.bias, self.training, self.momentum)  # type: ignore[arg-type]


class Averaged(nn.Module):
    """Keeps a moving average of its input's mean, written out, and takes it away."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(n))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            with torch.no_grad():
                self.mean.mul_(0.9).add_(x.mean((0, 2, 3)), alpha=0.1)  # type: ignore[operator, union-attr]
        return x - self.mean[:, None, None]  # type: ignore[index]


def baked(step: Callable[[Any, Tensor], Tensor], **parts: Any) -> Net:
    """Two convolutions with a step in between, and a view with a channel count in it."""

    def forward(n: Any, x: Tensor) -> Tensor:
        y = step(n, n.a(x))
        y = F.relu(n.b(y.view(-1, 16, 36).view(-1, 16, 6, 6)))
        return n.fc(y.mean((2, 3)))  # type: ignore[no-any-return]

    torch.manual_seed(0)
    return Net(forward, **{"a": conv(3, 16), "b": conv(16, 8), "fc": nn.Linear(8, 5)} | parts)


def module(part: Callable[[], nn.Module]) -> Callable[[], Net]:
    return lambda: baked(lambda n, y: n.part(y), part=part())


def with_weight(function: Callable[..., Tensor], *parts: str) -> Callable[[Any, Tensor], Tensor]:
    return lambda n, y: F.conv2d(y, function(n.extra.weight, *(getattr(n, p) for p in parts)), padding=1)


def tokens(part: nn.Module) -> Callable[[Any, Tensor], Tensor]:
    """The step that sees channels last, in a sequence."""

    def step(n: Any, y: Tensor) -> Tensor:
        made = n.part(y.flatten(2).transpose(1, 2))
        return (made[0] if isinstance(made, tuple) else made).transpose(1, 2)  # type: ignore[no-any-return]

    return step


def frozen(net: Net) -> Net:
    net.a.requires_grad_(False)
    return net


def attention(need_weights: bool) -> Net:
    part = nn.MultiheadAttention(16, 2, dropout=0.3, batch_first=True)

    def step(n: Any, y: Tensor) -> Tensor:
        x = y.flatten(2).transpose(1, 2)
        return n.part(x, x, x, need_weights=need_weights)[0].transpose(1, 2)  # type: ignore[no-any-return]

    return baked(step, part=part)


def scaled(n: Any, y: Tensor) -> Tensor:
    x = y.flatten(2).transpose(1, 2)
    return F.scaled_dot_product_attention(x, x, x, dropout_p=0.3 if n.training else 0.0).transpose(1, 2)


def quiet(n: Any, y: Tensor) -> Tensor:
    with torch.no_grad():
        factor = y.mean((2, 3), keepdim=True)
    return y * factor


def loud_inside(n: Any, y: Tensor) -> Tensor:
    with torch.no_grad():
        z = y * 2
        with torch.enable_grad():
            z = z + y.sigmoid()
    return z


def channel_mask(n: Any, y: Tensor) -> Tensor:
    """Channel dropout, written out: the number of channels stands in the graph."""
    if n.training:
        y = y * torch.rand(y.shape[0], y.shape[1], 1, 1).lt(0.7) / 0.7
    return y


NETS: dict[str, Callable[[], nn.Module]] = {
    "gradient reversal": lambda: baked(lambda n, y: Reverse.apply(F.relu(y), 0.7)),
    "straight-through": lambda: baked(lambda n, y: Sign.apply(y)),
    "quantised weight": lambda: baked(
        with_weight(Quantised.apply, "size"), extra=conv(16, 16), size=nn.Parameter(torch.tensor([0.1]))
    ),
    "written in place": lambda: baked(lambda n, y: Doubled.apply(y + 1)),
    "in place, read by its old name": lambda: baked(lambda n, y: (z := y + 1, Doubled.apply(z), z)[2]),
    "two outputs": lambda: baked(lambda n, y: sum(Halves.apply(y))),
    "function twice": lambda: baked(lambda n, y: Sign.apply(Reverse.apply(y, 2.0)) + Sign.apply(y + 1)),
    "functional batch norm": module(lambda: Statistics(16)),
    "functional instance norm": module(lambda: Statistics(16, instance=True)),
    "instance norm": module(lambda: nn.InstanceNorm2d(16, affine=True, track_running_stats=True)),
    "batch norm": module(lambda: nn.BatchNorm2d(16)),
    "batch norm, cumulative": module(lambda: nn.BatchNorm2d(16, momentum=None)),
    "batch norm without statistics": module(lambda: nn.BatchNorm2d(16, track_running_stats=False)),
    "moving average written out": module(lambda: Averaged(16)),
    "dropout": module(lambda: nn.Dropout(0.3)),
    "dropout in place": module(lambda: nn.Dropout(0.3, inplace=True)),
    "functional dropout": lambda: baked(lambda n, y: F.dropout(y, 0.3, n.training)),
    "dropout that never stops": lambda: baked(lambda n, y: F.dropout(y, 0.3, False)),
    "channel dropout": module(lambda: nn.Dropout2d(0.3)),
    "alpha dropout": module(lambda: nn.AlphaDropout(0.3)),
    "feature alpha dropout": module(lambda: nn.FeatureAlphaDropout(0.3)),
    "random relu": module(lambda: nn.RReLU()),
    "stochastic depth": lambda: baked(lambda n, y: y + n.part(F.relu(n.c(y))), part=DropPath(), c=conv(16, 16)),
    "lstm": lambda: baked(tokens(part := nn.LSTM(16, 16, 2, dropout=0.3, batch_first=True)), part=part),
    "gru": lambda: baked(tokens(part := nn.GRU(16, 16, 2, dropout=0.3, batch_first=True)), part=part),
    "attention": lambda: attention(need_weights=False),
    "attention with weights": lambda: attention(need_weights=True),
    "scaled dot product": lambda: baked(scaled),
    "no gradients": lambda: baked(quiet),
    "gradients within none": lambda: baked(loud_inside),
    "detached": lambda: baked(lambda n, y: y.detach() * y.sigmoid()),
    "data": lambda: baked(lambda n, y: y.data * y.sigmoid()),
    "checkpoint": lambda: baked(lambda n, y: checkpoint(lambda z: n.d(n.c(z)), y, use_reentrant=False),
                                c=conv(16, 16), d=nn.Dropout(0.3)),
    "reentrant checkpoint": lambda: baked(lambda n, y: checkpoint(lambda z: n.d(n.c(z)), y, use_reentrant=True),
                                          c=conv(16, 16), d=nn.Dropout(0.3)),
    "spectral norm": lambda: baked(lambda n, y: n.part(y), part=parametrizations.spectral_norm(conv(16, 16))),
    "weight norm": lambda: baked(lambda n, y: n.part(y), part=parametrizations.weight_norm(conv(16, 16))),
    "channel dropout written out": lambda: baked(channel_mask),
    "frozen layer": lambda: frozen(baked(lambda n, y: n.part(y), part=nn.BatchNorm2d(16))),
}  # fmt: skip


class Auxiliary(nn.Module):
    """A second head, in training alone."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.fc, self.aux = conv(3, 16), conv(16, 8), nn.Linear(8, 5), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Any:
        y = F.relu(self.a(x)).view(-1, 16, 36).view(-1, 16, 6, 6)
        out = self.fc(self.b(y).mean((2, 3)))
        return (out, self.aux(y.mean((2, 3)))) if self.training else out


class Hidden(Function):
    """Runs a layer that it is not given as a tensor: no graph can hand it a cut one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: nn.Module) -> Tensor:
        return layer(x)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return -grads[0], None


def by_chance(draw: Callable[[], float]) -> Callable[[Any, Tensor], Tensor]:
    """A layer that is left out by chance."""
    return lambda n, y: y if n.training and draw() < 0.5 else y + n.c(y)


CANNOT_BE_REBUILT: dict[str, Callable[[], nn.Module]] = {
    "auxiliary head": Auxiliary,
    "layer dropout by Python": lambda: baked(by_chance(random.random), c=conv(16, 16)),
    "layer dropout by torch": lambda: baked(by_chance(lambda: torch.rand(()).item()), c=conv(16, 16)),
}
"""What these do in training is named."""
