"""Budget-aware regularisation: Lemaire et al. CVPR 2019, arXiv 1811.09332."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import ConfigError
from autoprune.space.groups import FloatArray, Widths
from autoprune.sparsity.base import SparsityTraining, Subject, check_number, counted
from autoprune.sparsity.channels import GroupChannels
from autoprune.sparsity.gates import ChannelGates, GatedNetwork
from autoprune.sparsity.own_parameters import OwnOptimizer
from autoprune.sparsity.soft_costs import SoftFlops
from autoprune.training.objectives.base import Objective

TEMPERATURE, LOW, HIGH = 2 / 3, -0.1, 1.1
"""β, γ, ζ of the hard-concrete distribution (Louizos et al. 2018, arXiv 1712.01312, section 4.1)."""

_STEEPEST = 10.0
"""Of the barrier, so that what the loss says of a channel is heard while the cost is past a budget that moves on."""


@final
class HardConcreteGates(ChannelGates):
    """A hard-concrete gate on each channel: s = σ((log u - log(1 - u) + log α) / β), z = min(1, max(0, s(ζ - γ) + γ)).

    In eval mode u = 1/2 and β = 1, as in the paper.

    Args:
        channels: of the network.
        opened: how likely a gate is open at the beginning.
    """

    def __init__(self, channels: GroupChannels, opened: float) -> None:
        super().__init__(channels)
        start = math.log(opened / (1 - opened)) + TEMPERATURE * math.log(-LOW / HIGH)
        self.log_alpha = nn.Parameter(torch.full((channels.number,), start, device=channels.slots.device))

    def factors(self) -> Tensor:
        """See `ChannelGates.factors`."""
        if self.training:
            u = torch.rand_like(self.log_alpha).clamp(1e-6, 1 - 1e-6)
            s = torch.sigmoid((u.log() - (1 - u).log() + self.log_alpha) / TEMPERATURE)
        else:
            s = torch.sigmoid(self.log_alpha)
        return (s * (HIGH - LOW) + LOW).clamp(0, 1)

    def opened(self) -> Tensor:
        """(number,) P(z > 0) = σ(log α - β log(-γ / ζ)), equation 12 of Louizos et al."""
        return torch.sigmoid(self.log_alpha - TEMPERATURE * math.log(-LOW / HIGH))


@final
class BudgetAwareRegularization(SparsityTraining):
    """Hard-concrete gates under a barrier that is infinite at a budget, which moves to that of the job.

    loss + weight · L_S · f(V, a, b): L_S is the expected cost as a share of the full network's; f is the barrier; V the
    cost of the channels whose gates are open in eval mode; b falls from the full cost to the budget in the form of a
    sigmoid (section 3.3), and a is the cost from which on there is no more pressure. The loss is distillation from the
    base network (section 3.4). Departures: cost is FLOPs (the paper has the volume of activations), so that the
    budget is one that jobs have, that of uniform widths; Adam with one second moment for all steps the gates; past b
    the barrier is 10, not infinite. Gates need some hundred steps to close.

    Args:
        weight: of the barrier.
        lr: of the gates, by Adam.
        opened: how likely a gate is open at the beginning.
        margin: a, as a share of b.
        distil: learn from the base network, too; false: by the job's own objective alone.
    """

    inherits: ClassVar[bool] = True

    def __init__(
        self,
        *,
        weight: float = 1.0,
        lr: float = 0.05,
        opened: float = 0.95,
        margin: float = 0.95,
        distil: bool = True,
    ) -> None:
        check_number("bar", "weight", weight)
        check_number("bar", "lr", lr)
        check_number("bar", "opened", opened, most=0.999)
        check_number("bar", "margin", margin, most=0.999)
        if not isinstance(distil, bool):
            raise ConfigError(f"sparsity training 'bar': distil must be true or false, got {distil!r}")
        self._weight, self._lr, self._start, self._margin, self._distil = weight, lr, opened, margin, distil

    def set_up(self, subject: Subject) -> nn.Module:
        """See `SparsityTraining.set_up`."""
        self.subject, self._cost = subject, SoftFlops(subject.space, subject.network)
        gates = HardConcreteGates(subject.channels, self._start)
        self._own = OwnOptimizer([gates.log_alpha], lr=self._lr, shared=True)
        self._budget = float(self._cost.share(list(subject.target)))
        return GatedNetwork(subject.network, gates)

    def objective(self) -> Objective | None:
        """See `SparsityTraining.objective`."""
        return self.subject.taught() if self._distil else None

    def begin(self, model: nn.Module) -> None:
        """See `Term.begin`."""
        if not isinstance(model, GatedNetwork) or not isinstance(model.gates, HardConcreteGates):
            raise ConfigError("sparsity training 'bar' trains the network that it has set up, and no other")

    def penalty(self, model: nn.Module, *, done: float) -> Tensor:
        """See `Term.penalty`."""
        gates, channels = model.gates, self.subject.channels
        expected = self._cost.share(channel_widths(channels, gates.opened(), self.subject.target))  # type: ignore[union-attr, operator]
        with torch.no_grad():
            opened = (torch.sigmoid(gates.log_alpha) * (HIGH - LOW) + LOW > 0).to(expected.dtype)  # type: ignore[union-attr, arg-type]
            volume = float(self._cost.share(channel_widths(channels, opened, self.subject.target)))
        limit = moving_budget(done, self._budget)
        return self._weight * barrier(volume, self._margin * limit, limit) * expected

    def after_backward(self, model: nn.Module, *, done: float) -> None:
        """See `Term.after_backward`."""
        self._own.take()

    def after_step(self, model: nn.Module, *, done: float) -> None:
        """See `Term.after_step`."""
        self._own.step()

    def scores(self, model: nn.Module) -> Tensor:
        """How likely each gate is open; above 0.31 it is open in eval mode, too."""
        opened: Tensor = model.gates.opened()  # type: ignore[union-attr, operator]
        return opened

    def widths(self, domain: BudgetedSpace, scores: Sequence[FloatArray]) -> Widths:
        """The channels whose gates are open in eval mode, repaired: the training has kept the budget by itself."""
        closed = 1 / (1 + math.exp(-(math.log(-LOW / HIGH) - TEMPERATURE * math.log(-LOW / HIGH))))
        return counted(domain, scores, closed)

    def passes(self, epochs: int) -> float:
        """Training, and of distillation as many passes of the base network, which cost a third of one of training."""
        return epochs * (4 / 3 if self._distil else 1.0)

    def state_dict(self) -> dict[str, Any]:
        """See `Term.state_dict`."""
        return {"own": self._own.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Term.load_state_dict`."""
        self._own.load_state_dict(state["own"])


def channel_widths(channels: GroupChannels, values: Tensor, target: Sequence[int]) -> list[Tensor | int]:
    """Per group the width that these (number,) shares of channels make, at least 1; blocks as in the target."""
    widths: list[Tensor | int] = list(target)
    for index, parts in channels.of_groups:
        share = torch.cat([values[part] for part in parts]).mean()
        full = channels.space.groups[index].width
        widths[index] = (share * full).clamp(min=1.0)
    return widths


def moving_budget(done: float, budget: float, steepness: float = 10.0) -> float:
    """b(t): from 1 to the budget, both shares of the full cost, along a sigmoid over the first four fifths."""
    if done >= 0.8:
        return budget
    low, high, here = (1 / (1 + math.exp(-steepness * (x - 0.5))) for x in (0.0, 1.0, done / 0.8))
    return 1 - (1 - budget) * (here - low) / (high - low)


def barrier(volume: float, low: float, high: float) -> float:
    """f(V, a, b): 0 up to a, (V - a)² / (b - V) / (b - a) between, its largest value past b, where it is infinite."""
    if volume <= low:
        return 0.0
    if volume >= high:
        return _STEEPEST
    return min(_STEEPEST, (volume - low) ** 2 / ((high - volume) * (high - low)))
