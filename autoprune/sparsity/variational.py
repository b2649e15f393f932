"""Variational pruning: Zhao et al. CVPR 2019, Variational Convolutional Neural Network Pruning."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, final

import torch
from torch import Tensor, nn

from autoprune.errors import ConfigError
from autoprune.sparsity.base import SparsityTraining, Subject, check_number, parameters, scale_magnitudes
from autoprune.sparsity.channels import weights_of
from autoprune.sparsity.gates import GatedNetwork, Gates
from autoprune.sparsity.own_parameters import OwnOptimizer

_LEAST = -12.0
"""Of log σ: below it a scale is as good as fixed."""

_SMALLEST = 1e-3
"""Of |γ| at the beginning; a channel that is gone for good would never be drawn."""

_FAINT = 0.1
"""Of the mean of |γ| of a norm: below it β / γ is so large that a step or a draw of γ would throw the shift about."""


@final
class ScaleNoise(Gates):
    """The scales of batch norms as draws from N(γ, σ²), their means in eval mode; section 3.1.

    A norm is γ · (x̂ + β̃): the parameter that is its shift β holds β̃ = β / γ until the gates are settled, so that scale
    and shift are 0 together; not of channels whose γ is faint from the beginning. The scales themselves stay the means.

    Args:
        weights: of the network, by name; changed in place.
        pairs: (name of the scale, name of the shift or "") of each norm.
        sigma: at the beginning, as a share of |γ|.
    """

    def __init__(self, weights: Mapping[str, Tensor], pairs: list[tuple[str, str]], sigma: float) -> None:
        super().__init__()
        self._pairs = pairs
        self._joined: list[Tensor] = []  # where the shift is a multiple of the scale
        started = []
        with torch.no_grad():
            for scale, shift in pairs:
                gamma = weights[scale]
                least = torch.full_like(gamma, _SMALLEST).copysign(gamma)
                gamma.copy_(torch.where(gamma.abs() < _SMALLEST, least, gamma))
                joined = gamma.abs() >= _FAINT * gamma.abs().mean()
                if shift:
                    weights[shift].div_(torch.where(joined, gamma, 1.0))
                self._joined.append(joined)
                started.append((gamma.abs() * sigma).log())
        self.log_sigmas = nn.ParameterList(nn.Parameter(start) for start in started)

    def forward(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Gates.forward`."""
        found: dict[str, Tensor] = {}
        for (scale, shift), log_sigma, joined in zip(self._pairs, self.log_sigmas, self._joined, strict=True):
            gamma = weights[scale]
            found[scale] = gamma + log_sigma.exp() * torch.randn_like(gamma) if self.training else gamma
            if shift:
                found[shift] = weights[shift] * torch.where(joined, found[scale], 1.0)
        return found


@final
class VariationalPruning(SparsityTraining):
    """Scales of batch norms as Gaussians, drawn towards a prior around 0 by their divergence from it.

    The loss is the negative evidence bound: loss + weight · Σ KL(N(γ, σ²) ‖ N(0, s²)) / examples. A channel whose γ and
    σ are both small is always near 0 and goes; its importance is sqrt(γ² + σ²), the root of E[γ²], summed over its
    norms. The paper cuts by two thresholds; here one meets the budget.

    Args:
        weight: of the divergence.
        prior: s, the standard deviation of the prior.
        sigma: at the beginning, as a share of |γ|.
        lr: of log σ, by Adam.
    """

    def __init__(self, *, weight: float = 1.0, prior: float = 0.3, sigma: float = 0.1, lr: float = 0.01) -> None:
        for name, value in (("weight", weight), ("prior", prior), ("sigma", sigma), ("lr", lr)):
            check_number("variational", name, value)
        self._weight, self._prior, self._sigma, self._lr = weight, prior, sigma, lr

    def set_up(self, subject: Subject) -> nn.Module:
        """See `SparsityTraining.set_up`."""
        self.subject = subject
        weights = weights_of(subject.network)
        scale_magnitudes(subject.channels, dict(weights), "variational")
        shifts = {axis.name for axis in subject.channels.shifts}
        names = [axis.name for axis in subject.channels.scales]
        pairs = [(n, s if (s := f"{n.rpartition('.')[0]}.bias".lstrip(".")) in shifts else "") for n in names]
        gates = ScaleNoise(weights, pairs, self._sigma)
        self._own = OwnOptimizer(list(gates.log_sigmas), lr=self._lr)
        return GatedNetwork(subject.network, gates)

    def begin(self, model: nn.Module) -> None:
        """See `Term.begin`."""
        if not isinstance(model, GatedNetwork) or not isinstance(model.gates, ScaleNoise):
            raise ConfigError("sparsity training 'variational' trains the network that it has set up, and no other")

    def penalty(self, model: nn.Module, *, done: float) -> Tensor:
        """See `Term.penalty`."""
        weights, noise = parameters(model), model.gates
        names = [axis.name for axis in self.subject.channels.scales]
        parts = [
            gaussian_divergence(weights[name], log_sigma, self._prior).sum()
            for name, log_sigma in zip(names, noise.log_sigmas, strict=True)  # type: ignore[union-attr, arg-type]
        ]
        return torch.stack(parts).sum() * (self._weight / self.subject.examples)

    def after_backward(self, model: nn.Module, *, done: float) -> None:
        """See `Term.after_backward`."""
        self._own.take()

    def after_step(self, model: nn.Module, *, done: float) -> None:
        """See `Term.after_step`."""
        self._own.step()
        for log_sigma in model.gates.log_sigmas:  # type: ignore[union-attr]
            log_sigma.clamp_(min=_LEAST)

    def scores(self, model: nn.Module) -> Tensor:
        """See `SparsityTraining.scores`."""
        weights = parameters(model)
        for axis, log_sigma in zip(self.subject.channels.scales, model.gates.log_sigmas, strict=True):  # type: ignore[union-attr, arg-type]
            weights[axis.name] = (weights[axis.name].square() + (2 * log_sigma).exp()).sqrt()
        return scale_magnitudes(self.subject.channels, weights, "variational")

    def state_dict(self) -> dict[str, Any]:
        """See `Term.state_dict`."""
        return {"own": self._own.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Term.load_state_dict`."""
        self._own.load_state_dict(state["own"])


def gaussian_divergence(mean: Tensor, log_sigma: Tensor, prior: float) -> Tensor:
    """KL(N(mean, sigma²) ‖ N(0, prior²)), element by element."""
    return math.log(prior) - log_sigma + ((2 * log_sigma).exp() + mean.square()) / (2 * prior**2) - 0.5
