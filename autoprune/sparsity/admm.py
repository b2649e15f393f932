"""ADMM: Zhang et al. ECCV 2018, arXiv 1804.03294, with channels in the place of single weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import ConfigError
from autoprune.space.groups import FloatArray, Widths
from autoprune.sparsity.base import SparsityTraining, Subject, check_number, parameters
from autoprune.sparsity.channels import GroupChannels, weights_of
from autoprune.sparsity.targets import target_widths


@final
class AdmmPruning(SparsityTraining):
    """Weights are drawn to the nearest network of the target widths, which follows them; section 3.

    min f(W) + g(Z), W = Z: steps on f + ρ/2 · ‖W - Z + U‖² for the weights; now and then Z = Π(W + U), U += W - Z. Π
    keeps of each group as many channels as uniform widths have, those with the largest Frobenius norm over all that
    writes them, and sets the others to 0. Where ρ grows, U = Y / ρ shrinks, as the multiplier Y stays (Boyd et al.
    2011, section 3.4.1).

    Args:
        rho: ρ; 1e-3 and more in the authors' code.
        updates: of Z and U, spread evenly over the training.
        raised: ρ grows by this factor up to the end, evenly in its logarithm; 1: it stays.
    """

    inherits: ClassVar[bool] = True

    def __init__(self, *, rho: float = 1e-2, updates: int = 10, raised: float = 10.0) -> None:
        check_number("admm", "rho", rho)
        check_number("admm", "updates", updates, least=1, whole=True)
        check_number("admm", "raised", raised, least=1)
        self._rho, self._updates, self._raised = rho, updates, raised

    def set_up(self, subject: Subject) -> nn.Module:
        """See `SparsityTraining.set_up`."""
        self.subject, self._done = subject, 0
        if not subject.channels.written:
            raise ConfigError("sparsity training 'admm': no weight of this network writes a group; choose sss or bar")
        weights = written(subject.channels, weights_of(subject.network))
        # Y / ρ₀, which stays where ρ grows: U at its beginning
        self._y = {name: torch.zeros_like(weight) for name, weight in weights.items()}
        self._z = project(subject.channels, weights, subject.target)
        return subject.network

    def after_backward(self, model: nn.Module, *, done: float) -> None:
        """Add ρ · (W - Z + U), the gradient of the penalty."""
        grown = math.pow(self._raised, done)
        for name, weight in written(self.subject.channels, parameters(model)).items():
            if weight.grad is not None:
                off = weight.detach() - self._z[name] + self._y[name] / grown
                weight.grad.add_(off, alpha=self._rho * grown)

    def after_step(self, model: nn.Module, *, done: float) -> None:
        """See `Term.after_step`."""
        if done * (self._updates + 1) < self._done + 1:  # between them and around them the weights train as long
            return
        self._done += 1
        weights = written(self.subject.channels, parameters(model))
        grown = math.pow(self._raised, done)
        shifted = {name: weight.detach() + self._y[name] / grown for name, weight in weights.items()}
        self._z = project(self.subject.channels, shifted, self.subject.target)
        self._y = {name: (shifted[name] - self._z[name]) * grown for name in shifted}

    def scores(self, model: nn.Module) -> Tensor:
        """Norms of what writes the channels."""
        channels = self.subject.channels
        return channels.norms(parameters(model), channels.written).detach()

    def widths(self, domain: BudgetedSpace, scores: Sequence[FloatArray]) -> Widths:
        """Those that it was trained towards."""
        return target_widths(domain)

    def state_dict(self) -> dict[str, Any]:
        """See `Term.state_dict`."""
        return {"z": self._z, "u": self._y, "done": self._done}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Term.load_state_dict`."""
        device = self.subject.channels.slots.device
        self._z, self._y = ({n: t.to(device) for n, t in state[key].items()} for key in ("z", "u"))
        self._done = state["done"]


def written(channels: GroupChannels, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights and biases that write channels."""
    return {axis.name: weights[axis.name] for axis in channels.written}


@torch.no_grad()
def project(channels: GroupChannels, weights: Mapping[str, Tensor], target: Widths) -> dict[str, Tensor]:
    """Π: the nearest weights in which only as many channels as these widths have are not 0."""
    kept = channels.kept(channels.norms(weights, channels.written), target)
    return channels.scaled(weights, kept.float(), channels.written)
