"""What criteria look at: calibration data, and the values that are gathered on them for all groups at once.

*Activations* are what the readers of a channel get: after the norm, the activation function and the sum. *Gates* are
ones that multiply what all readers of a channel get, one for each example and channel; the gradient of the loss by a
gate is, to first order, what removing the channel does to the loss of that example (sum of activation times gradient).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias, final

import torch
from torch import Tensor

from autoprune.errors import ConfigError
from autoprune.importance.needs import DATA, LOSS, NETWORK, Members, Need, criterion, needs_of
from autoprune.training.objectives.base import LossOfOutputs

__all__ = [
    "DATA",
    "EVIDENCE_BATCHES",
    "LOSS",
    "NETWORK",
    "Activations",
    "Calibration",
    "Curvature",
    "Gradients",
    "GroupEvidence",
    "InputMoments",
    "Members",
    "Need",
    "Objective",
    "check_data",
    "criterion",
    "needs_of",
]

EVIDENCE_BATCHES = 10
"""How many training batches a run gathers evidence on."""

_CPU = torch.device("cpu")

Objective: TypeAlias = Callable[[Any, Any], Tensor]
"""(outputs of the network, targets) -> loss, the mean over the examples of the batch."""


@final
@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """Data that evidence is gathered on.

    Attributes:
        batches: (inputs, targets); inputs a tensor, a tuple of positional or a mapping of keyword inputs; targets None
            where there are none.
        objective: the loss; None: there is none.
        device: where to run.
    """

    batches: Iterable[tuple[Any, Any]]
    objective: Objective | None = None
    device: torch.device = _CPU

    def __post_init__(self) -> None:
        if isinstance(self.batches, Iterator):  # they are gone through several times
            object.__setattr__(self, "batches", list(self.batches))

    def loss(self, outputs: Any, targets: Any, inputs: Any) -> Tensor:
        """The mean loss over a batch of what the network gave for it.

        Raises:
            ConfigError: there is no objective.
        """
        if self.objective is None:
            raise ConfigError("there is no loss: give batches of (inputs, targets) with a loss")
        if isinstance(self.objective, LossOfOutputs):
            return self.objective(outputs, targets, inputs)
        return self.objective(outputs, targets)


def check_data(needs: frozenset[Need], calibration: Calibration | None, *, what: str) -> Calibration:
    """Return the data that are needed.

    Raises:
        ConfigError: there are none, or no loss where one is needed.
    """
    kinds = ", ".join(sorted(needs & DATA))
    if calibration is None:
        raise ConfigError(f"{what} needs {kinds}: give it data (calibration=…), or choose a criterion of weights only")
    if needs & LOSS and calibration.objective is None:
        raise ConfigError(
            f"{what} needs {kinds} and so a loss, and there is none: give batches of (inputs, targets) with a loss, or "
            f"choose a criterion without gradients"
        )
    return calibration


@final
@dataclass(frozen=True, slots=True, eq=False)
class Activations:
    """(width,) moments of the values that the readers of each channel get, over examples and positions.

    Attributes:
        mean: of the values.
        variance: of the values, biased.
        zeros: share of values that are exactly zero.
        mean_abs: mean of the absolute values.
    """

    mean: Tensor
    variance: Tensor
    zeros: Tensor
    mean_abs: Tensor


@final
@dataclass(frozen=True, slots=True, eq=False)
class Gradients:
    """First-order terms, averaged.

    Attributes:
        gates: (width,) mean over batches of the gradient of the loss by the channel's gate.
        gate_squares: (width,) mean over batches of its square.
        weights: as `filters`: mean over batches of gradient times weight.
        weight_squares: as `filters`: mean over batches of its square.
        magnitudes: (width,) mean over examples of |mean over positions of value times gradient|, the loss being that of
            the example.
    """

    gates: Tensor
    gate_squares: Tensor
    weights: tuple[Tensor, ...]
    weight_squares: tuple[Tensor, ...]
    magnitudes: Tensor


@final
@dataclass(frozen=True, slots=True, eq=False)
class Curvature:
    """Diagonal of the empirical Fisher information.

    Attributes:
        gates: (width,) mean over examples of the squared gradient of the example's own loss by the channel's gate.
    """

    gates: Tensor


@final
@dataclass(frozen=True, slots=True, eq=False)
class InputMoments:
    """One weight as matrices, y = W u, and the moments of u: what a kernel covers, at sampled positions.

    Attributes:
        weight: (groups, outputs, D) of each group of a convolution; one group elsewhere.
        second: (groups, D, D) mean of u uᵀ over examples and positions.
        mean: (groups, D) mean of u.
        count: how many u there were.
        channel: (groups, D) the channel that each element of u belongs to; -1 where it is none of the group.
        inverses: what `inverse` has made, shared by all groups of channels that the weight reads.
    """

    weight: Tensor
    second: Tensor
    mean: Tensor
    channel: Tensor
    count: int
    inverses: dict[tuple[bool, float], Tensor] = field(default_factory=dict)

    @property
    def centred(self) -> Tensor:
        """(groups, D, D) covariance of u."""
        return self.second - self.mean[:, :, None] * self.mean[:, None]

    def inverse(self, *, centred: bool, share: float) -> Tensor:
        """(groups, D, D) inverse of second moments with a ridge, a share of the mean of their diagonal.

        Made once for all groups of channels that the weight reads; zeros where nothing is ever read.
        """
        if (centred, share) not in self.inverses:
            moments = self.centred if centred else self.second
            power = moments.diagonal(dim1=1, dim2=2).mean(dim=1)[:, None, None]
            ridge = torch.where(power > 0, share * power, torch.ones_like(power))
            regular = moments + ridge * torch.eye(moments.shape[1]).to(moments)
            self.inverses[centred, share] = torch.where(power > 0, torch.linalg.inv(regular), 0.0)
        return self.inverses[centred, share]


@final
@dataclass(frozen=True, slots=True, eq=False)
class GroupEvidence:
    """What a criterion sees of one width group, or of one of the sets that are tied in it.

    Rows are channels, aligned over all members; for a density, single weights of a layer (or blocks of them). Besides
    filters, scales and layers only what the criterion needs is there.

    Attributes:
        width: number of channels.
        filters: one (width, n) tensor per weight or bias that writes the channels; where none does (an embedding tied
            to the last layer), one per weight that reads them.
        norm_scales: one (width,) tensor per batch norm of the group.
        readers: one (width, n) tensor per weight that reads the channels.
        activations: moments of what the readers get.
        gradients: first-order terms.
        curvature: second-order terms.
        layers: the layer of each of `filters`.
        inputs: as `readers`: the mean over examples and positions of the square of what the weight multiplies.
        pooled: (width, examples) mean of what the readers get of each of a sample of examples.
        moments: of each weight that reads the channels.
        kernels: of each of `filters` the extent of its kernel, the last axes of its rows; () where it has none.
        spread: of single weights: (groups, D) values of what `moments` are of -> as `filters`, of what each multiplies;
            (groups, outputs, D) values of the weights -> as `filters`.
        maps: one (width, examples, height, width) tensor per call that reads the channels: what it gets, position by
            position, of each of a sample of examples.
    """

    width: int
    filters: tuple[Tensor, ...]
    norm_scales: tuple[Tensor, ...]
    readers: tuple[Tensor, ...] = ()
    activations: Activations | None = None
    gradients: Gradients | None = None
    curvature: Curvature | None = None
    layers: tuple[str, ...] = ()
    inputs: tuple[Tensor, ...] | None = None
    pooled: Tensor | None = None
    maps: tuple[Tensor, ...] | None = None
    moments: tuple[InputMoments, ...] | None = None
    spread: Callable[[Tensor], Tensor] | None = None
    kernels: tuple[tuple[int, ...], ...] = ()
