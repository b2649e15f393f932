"""Energy-aware pruning: Yang et al. CVPR 2017, arXiv 1611.05128."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, final

import numpy as np
import torch
from torch import Tensor, nn

from autoprune.cost.flops import flops
from autoprune.errors import ConfigError
from autoprune.sparsity.base import SparsityTraining, Subject, check_nothing_frozen, check_number, parameters
from autoprune.sparsity.reading import mean_squares

_BATCHES = 4


@final
class EnergyAware(SparsityTraining):
    """Group by group, the one that costs most first, channels go whose loss the readers hardly feel; training between.

    A channel costs its readers E[x²] · ‖W_read‖²; sorted from below and summed up as a share of all channels of the
    group, these are the squares of the relative error of what the readers get. At each of G times in the first half of
    the training the next group loses the channels up to the tolerance (their reading weights are 0 from then on), as
    the paper prunes layer by layer in the order of their energy and fine-tunes (sections 4 and 5). Importance is that
    relative error, seen when the turn of the group came, so one threshold for all groups meets the budget. Departures:
    FLOPs stand for energy; the paper's least squares are what the job's inheritance does.

    Args:
        tolerance: relative error up to which channels go on the way; below 1, at which all of them would.
    """

    inherits: ClassVar[bool] = True

    def __init__(self, *, tolerance: float = 0.2) -> None:
        check_number("energy", "tolerance", tolerance, most=0.9999)
        self._tolerance = tolerance

    def set_up(self, subject: Subject) -> nn.Module:
        """See `SparsityTraining.set_up`."""
        check_nothing_frozen("energy", subject)
        self.subject, channels = subject, subject.channels
        self._batches = subject.batches(_BATCHES)
        if not self._batches or bool(channels.without_reader.all()):
            raise ConfigError("sparsity training 'energy' weighs what weights read, on examples: there are none")
        self._order, self._turn = costly_first(subject), 0
        self._open = torch.ones(channels.number, device=channels.slots.device)
        self._scores = torch.ones_like(self._open)
        return subject.network

    def after_step(self, model: nn.Module, *, done: float) -> None:
        """See `Term.after_step`."""
        channels = self.subject.channels
        while self._turn < len(self._order) and done >= 0.5 * self._turn / len(self._order):
            lost = mean_squares(model, channels, self._batches)
            norms = channels.norms(parameters(model), channels.read).square()
            for part in dict(channels.of_groups)[self._order[self._turn]]:
                errors = removal_errors(lost[part] * norms[part])
                self._scores[part] = errors
                self._open[part] = (errors > self._tolerance).float()
            self._turn += 1
        self._close(model)

    def _close(self, model: nn.Module) -> None:
        """Weights that read closed channels become 0, but for those that do not train."""
        channels, weights = self.subject.channels, parameters(model)
        channels.scale_(weights, self._open, [axis for axis in channels.read if weights[axis.name].requires_grad])

    def scores(self, model: nn.Module) -> Tensor:
        """See `SparsityTraining.scores`."""
        return self._scores.clone()

    def settle(self, model: nn.Module) -> nn.Module:
        """Channels that are closed are so in averages of weights, too."""
        self._close(model)
        return model

    def passes(self, epochs: int) -> float:
        """The training, and some forward passes for each group, each a third of one of training."""
        subject: Subject | None = getattr(self, "subject", None)
        if subject is None:
            return float(epochs)
        seen = sum(len(batch) for batch in self._batches)
        return epochs + len(self._order) * seen / subject.examples / 3

    def state_dict(self) -> dict[str, Any]:
        """See `Term.state_dict`."""
        return {"turn": self._turn, "open": self._open, "scores": self._scores}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Term.load_state_dict`."""
        device = self._open.device
        self._turn, self._open, self._scores = state["turn"], state["open"].to(device), state["scores"].to(device)


def costly_first(subject: Subject) -> list[int]:
    """Numbers of the groups by the FLOPs that go where one alone is as narrow as it may be, the most first."""
    full, cost = np.array(subject.space.full), flops(subject.space)
    saved = {}
    for index, _ in subject.channels.of_groups:
        row = full.copy()
        row[index] = subject.space.groups[index].choices[0]
        saved[index] = float(cost(full[None])[0] - cost(row[None])[0])
    return sorted(saved, key=lambda index: (-saved[index], index))


def removal_errors(losses: Tensor) -> Tensor:
    """(width,) the root of the share of all losses that is gone when a channel and all lesser ones are."""
    order = losses.argsort(stable=True)
    shares = losses[order].double().cumsum(0) / losses.double().sum().clamp(min=1e-30)
    return torch.zeros_like(losses).index_put((order,), shares.clamp(0, 1).sqrt().to(losses.dtype))
