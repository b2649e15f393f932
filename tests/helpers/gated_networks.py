"""Small networks with gates and derivatives written out, sharing nothing with the code that gathers evidence."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from autoprune.importance.evidence import Calibration
from autoprune.importance.network import NetworkEvidence
from autoprune.space.groups import SearchSpace
from autoprune.space.tracing.trace import trace
from autoprune.space.verification.verify import verify
from autoprune.testing.once import made_once


class Residual(nn.Module):
    """A sum read by two layers, a depthwise layer, and a flattened reader with several indices for each channel.

    Args:
        baked: reshape to a size that only a graph can follow.
        smooth: tanh in place of ReLU.
    """

    def __init__(self, *, baked: bool = False, smooth: bool = False) -> None:
        super().__init__()
        self.baked, self.bend = baked, torch.tanh if smooth else F.relu
        self.stem, self.bn = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.inner, self.back = nn.Conv2d(4, 5, 1), nn.Conv2d(5, 4, 3, padding=1)
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.head = nn.Linear(4 * 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bend(self.bn(self.stem(x)))
        x = self.bend(x + self.back(self.bend(self.inner(x))))
        x = F.adaptive_avg_pool2d(self.bend(self.depthwise(x)), 2)
        x = x.reshape(len(x), 16) if self.baked else x.flatten(1)
        return self.head(x)  # type: ignore[no-any-return]


OWNED = {"stem": ("stem", "back", "depthwise"), "inner": ("inner",)}
"""Group -> layers whose weights and biases write its channels."""


@made_once
def residual(*, baked: bool = False, smooth: bool = False) -> tuple[nn.Module, SearchSpace]:
    """The network in double precision and its space."""
    model = Residual(baked=baked, smooth=smooth).eval()
    with torch.no_grad():
        model.bn.running_mean.uniform_(-0.2, 0.2)  # type: ignore[union-attr, operator]
        model.bn.weight.uniform_(0.5, 1.5)
    verified = verify(model, trace(model, torch.randn(2, 2, 5, 5)))
    return verified.network.double(), verified.space


def batches(number: int = 2, size: int = 4) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(size, 2, 5, 5, generator=generator, dtype=torch.float64),
            torch.randint(3, (size,), generator=generator),
        )
        for _ in range(number)
    ]


def calibration(given: Sequence[tuple[Tensor, Tensor]] | None = None) -> Calibration:
    return Calibration(batches() if given is None else given, F.cross_entropy)


def evidence(model: nn.Module, space: SearchSpace) -> NetworkEvidence:
    return NetworkEvidence(model, space, calibration(), what="it")


def group_of(space: SearchSpace, name: str) -> int:
    return next(i for i, group in enumerate(space.groups) if group.name == name or name in str(group.members))


def gated(model: nn.Module, name: str, factors: Mapping[int, float]) -> nn.Module:
    """The network whose weights that read channels are scaled: what gates of all their readers do."""
    changed = copy.deepcopy(model)
    weights = dict(changed.named_parameters())
    with torch.no_grad():
        for channel, factor in factors.items():
            if name == "inner":
                weights["back.weight"][:, channel] *= factor
            else:
                weights["inner.weight"][:, channel] *= factor
                weights["head.weight"][:, 4 * channel : 4 * channel + 4] *= factor
    return changed


def losses(model: nn.Module, given: Sequence[tuple[Tensor, Tensor]] | None = None) -> Tensor:
    """The loss of each example."""
    with torch.no_grad():
        return torch.cat([F.cross_entropy(model(x), y, reduction="none") for x, y in given or batches()])


def gate_slopes(model: nn.Module, name: str, width: int, step: float = 1e-6) -> Tensor:
    """(examples, width) derivative of each example's loss by each gate, by central differences."""
    pairs = [(gated(model, name, {c: 1 + step}), gated(model, name, {c: 1 - step})) for c in range(width)]
    return torch.stack([(losses(up) - losses(down)) / (2 * step) for up, down in pairs], dim=1)


class Flat:
    """A network as a function of one vector: the weights that are named, one after the other."""

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        self.model, self.names = model, list(names)
        self.at = {name: p.detach() for name, p in model.named_parameters()}
        self.sizes = [self.at[name].numel() for name in self.names]

    @property
    def vector(self) -> Tensor:
        return torch.cat([self.at[name].flatten() for name in self.names])

    def outputs(self, vector: Tensor, inputs: Tensor) -> Tensor:
        parts = {
            name: part.reshape(self.at[name].shape)
            for name, part in zip(self.names, vector.split(self.sizes), strict=True)  # type: ignore[no-untyped-call]
        }
        found: Tensor = functional_call(self.model, self.at | parts, (inputs,))
        return found

    def loss(self, inputs: Tensor, labels: Tensor, temperature: float = 1.0) -> Callable[[Tensor], Tensor]:
        return lambda vector: F.cross_entropy(self.outputs(vector, inputs) / temperature, labels)

    def hessian(self, inputs: Tensor, labels: Tensor, temperature: float = 1.0) -> Tensor:
        found: Tensor = torch.autograd.functional.hessian(self.loss(inputs, labels, temperature), self.vector)  # type: ignore[no-untyped-call]
        return found

    def gauss_newton(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Of the mean cross entropy: J^T (diag p - p p^T) J, averaged over examples."""
        jacobian = torch.autograd.functional.jacobian(lambda v: self.outputs(v, inputs), self.vector)  # type: ignore[no-untyped-call]
        p = self.outputs(self.vector, inputs).softmax(dim=1)
        bent = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
        return torch.einsum("nip,nij,njq->pq", jacobian, bent, jacobian) / len(inputs)

    def channel(self, name: str, channel: int) -> Tensor:
        """True at the weights that write a channel."""
        parts = []
        for full in self.names:
            mask = torch.zeros_like(self.at[full], dtype=torch.bool)
            if full.partition(".")[0] in OWNED[name]:
                mask[channel] = True
            parts.append(mask.flatten())
        return torch.cat(parts)


def owned_names(model: nn.Module) -> list[str]:
    """Weights and biases that write channels of a group."""
    layers = {layer for found in OWNED.values() for layer in found}
    return [name for name, _ in model.named_parameters() if name.partition(".")[0] in layers]
