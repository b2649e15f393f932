"""Half-space projection: Chen et al. NeurIPS 2021, Only Train Once (OTO), arXiv 2107.07467, algorithm 2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from autoprune.errors import ConfigError
from autoprune.sparsity.base import SparsityTraining, Subject, check_nothing_frozen, check_number, parameters


@final
class HalfSpaceProjection(SparsityTraining):
    """Groups that a step would turn round are set to 0: HSPG on zero-invariant groups.

    A group is all that writes a channel, with scale and shift of its norms: where it is 0, the channel is 0 (section
    3.1). First the subgradient of weight · Σ ‖x_g‖ is added to the gradients; after the share `begin` of the training,
    a group x_g whose trial point x̃_g after the optimizer's step has x̃_gᵀ x_g < ε · ‖x_g‖² leaves its half-space and
    becomes 0 for good (equation 8). Importance is ‖x_g‖ as a share of the mean of its group before
    the training, as layers begin at scales of their own.

    Args:
        weight: λ; 1e-3 in the paper.
        epsilon: ε, above 0 and below 1; larger ones give more zeros.
        begin: the share of the training after which groups are projected.
    """

    inherits: ClassVar[bool] = True

    def __init__(self, *, weight: float = 1e-3, epsilon: float = 0.95, begin: float = 0.5) -> None:
        check_number("half_space", "weight", weight)
        check_number("half_space", "epsilon", epsilon, most=0.9999)
        check_number("half_space", "begin", begin, most=0.99)
        self._weight, self._epsilon, self._begin = weight, epsilon, begin

    def set_up(self, subject: Subject) -> nn.Module:
        """See `SparsityTraining.set_up`."""
        check_nothing_frozen("half_space", subject)
        self.subject, channels = subject, subject.channels
        weights, axes = parameters(subject.network), [*channels.written, *channels.scales, *channels.shifts]
        self._axes = [axis for axis in axes if weights[axis.name].requires_grad]
        if not any(axis in channels.written for axis in self._axes):
            raise ConfigError(
                "sparsity training 'half_space': no weight of this network that is trained writes a group; choose sss"
            )
        self._gone = torch.zeros(channels.number, dtype=torch.bool, device=channels.slots.device)
        self._before: dict[str, Tensor] = {}
        norms = channels.norms(weights, self._axes).detach()
        self._scale = channels.means(norms).clamp(min=1e-12)
        return subject.network

    @torch.no_grad()
    def after_backward(self, model: nn.Module, *, done: float) -> None:
        """Add the subgradient λ · x_g / ‖x_g‖, and remember x."""
        channels, weights = self.subject.channels, parameters(model)
        norms = channels.norms(weights, self._axes)
        factors = torch.where(norms > 0, self._weight / norms.clamp(min=1e-12), 0.0)
        padded = torch.cat([factors, factors.new_zeros(1)])
        for axis in self._axes:
            weight = weights[axis.name]
            if weight.grad is not None:
                weight.grad.add_(weight * axis.factors(padded, weight.ndim))
        projects = done >= self._begin
        self._before = {a.name: weights[a.name].detach().clone() for a in self._axes} if projects else {}

    def after_step(self, model: nn.Module, *, done: float) -> None:
        """See `Term.after_step`."""
        if not self._before:
            return
        channels, weights = self.subject.channels, parameters(model)
        products = {name: before * weights[name] for name, before in self._before.items()}
        inner = channels.sums(products, self._axes)
        squares = channels.sums({name: before.square() for name, before in self._before.items()}, self._axes)
        self._gone |= half_space_left(inner, squares, self._epsilon)
        channels.scale_(weights, (~self._gone).float(), self._axes)

    def scores(self, model: nn.Module) -> Tensor:
        """See `SparsityTraining.scores`; groups that are gone have 0, also where averages of weights remember them."""
        norms = self.subject.channels.norms(parameters(model), self._axes).detach()
        return norms.masked_fill(self._gone, 0.0) / self._scale

    def settle(self, model: nn.Module) -> nn.Module:
        """Groups that are gone are 0 in averages of weights, too."""
        self.subject.channels.scale_(parameters(model), (~self._gone).float(), self._axes)
        return model

    def state_dict(self) -> dict[str, Any]:
        """See `Term.state_dict`."""
        return {"gone": self._gone}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Term.load_state_dict`."""
        self._gone = state["gone"].to(self._gone.device)


def half_space_left(inner: Tensor, squares: Tensor, epsilon: float) -> Tensor:
    """True where x̃ᵀx < ε ‖x‖²."""
    return inner < epsilon * squares
