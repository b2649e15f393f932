"""DMCP: Guo et al. CVPR 2020, Differentiable Markov Channel Pruning, arXiv 2005.03354."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from autoprune.allocation.parts.path import repaired
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.space.groups import FloatArray, Widths
from autoprune.sparsity.bar import channel_widths
from autoprune.sparsity.base import SparsityTraining, Subject, check_number
from autoprune.sparsity.channels import GroupChannels, weights_of
from autoprune.sparsity.gates import ChannelGates, GatedNetwork
from autoprune.sparsity.own_parameters import OwnOptimizer
from autoprune.sparsity.soft_costs import SoftFlops

_CLOSE = 0.01
"""Of the full cost: nearer to the target there is no more to gain."""


@final
class MarkovGates(ChannelGates):
    """Channel k stays with p(k | k - 1) = σ(α_k) where channel k - 1 does; section 3.2.

    The factor of a channel is its marginal probability, the product over all before it (equation 3); the first stays.

    Args:
        channels: of the network.
        order: (number,) in its group and tied set, from 0, the most important first.
    """

    def __init__(self, channels: GroupChannels, order: Tensor) -> None:
        super().__init__(channels)
        self._order = order
        self.alpha = nn.Parameter(torch.zeros(channels.number, device=channels.slots.device))
        with torch.no_grad():
            for part in channels.parts:
                stays = 0.5 ** (1 / (part.stop - part.start))  # half of the probability is left at the last one
                self.alpha[part] = float(np.log(stays / (1 - stays)))

    def factors(self) -> Tensor:
        """See `ChannelGates.factors`."""
        stays = torch.sigmoid(self.alpha)
        marginals = torch.ones_like(stays)
        for part in self.channels.parts:
            order = self._order[part]
            inside = torch.cat([stays.new_ones(1), stays[part][1:]])  # alpha[k] is of the k-th in order
            marginals = torch.cat([marginals[: part.start], inside.cumprod(0)[order], marginals[part.stop :]])
        return marginals


@final
class DifferentiableMarkov(SparsityTraining):
    """Widths as the states of a Markov chain, whose expected FLOPs are drawn to the budget; section 3.3.

    loss + weight · log |E[FLOPs] - target| (equation 8), both as shares of the full network's, for weights and α at
    once; the target is that of uniform widths. Channels are ordered by the norm of what writes them, and the widths are
    the expected ones, repaired. Departure: the paper trains the weights by the sandwich rule first; ours are trained.

    Args:
        weight: of the FLOPs; 0.1 in the paper.
        lr: of α, by Adam.
    """

    def __init__(self, *, weight: float = 0.1, lr: float = 0.05) -> None:
        check_number("dmcp", "weight", weight)
        check_number("dmcp", "lr", lr)
        self._weight, self._lr = weight, lr

    def set_up(self, subject: Subject) -> nn.Module:
        """See `SparsityTraining.set_up`."""
        self.subject, channels = subject, subject.channels
        axes = channels.written or channels.read
        norms = channels.norms(weights_of(subject.network), axes).detach()
        order = torch.zeros(channels.number, dtype=torch.long, device=norms.device)
        for part in channels.parts:
            order[part] = norms[part].argsort(descending=True, stable=True).argsort()
        gates = MarkovGates(channels, order)
        self._own, self._cost = OwnOptimizer([gates.alpha], lr=self._lr), SoftFlops(subject.space, subject.network)
        self._target = float(self._cost.share(list(subject.target)))
        return GatedNetwork(subject.network, gates)

    def penalty(self, model: nn.Module, *, done: float) -> Tensor:
        """See `Term.penalty`."""
        marginals = model.gates.factors()  # type: ignore[union-attr, operator]
        expected = self._cost.share(channel_widths(self.subject.channels, marginals, self.subject.target))
        return self._weight * (expected - self._target).abs().clamp(min=_CLOSE).log()

    def after_backward(self, model: nn.Module, *, done: float) -> None:
        """See `Term.after_backward`."""
        self._own.take()

    def after_step(self, model: nn.Module, *, done: float) -> None:
        """See `Term.after_step`."""
        self._own.step()

    def scores(self, model: nn.Module) -> Tensor:
        """How likely each channel stays."""
        marginals: Tensor = model.gates.factors().detach()  # type: ignore[union-attr, operator]
        return marginals

    def widths(self, domain: BudgetedSpace, scores: Sequence[FloatArray]) -> Widths:
        """The expected widths, repaired."""
        groups = domain.space.groups
        return repaired(domain, [float(s.sum()) * g.width / g.slots for s, g in zip(scores, groups, strict=True)])

    def state_dict(self) -> dict[str, Any]:
        """See `Term.state_dict`."""
        return {"own": self._own.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Term.load_state_dict`."""
        self._own.load_state_dict(state["own"])
