"""ISTA on the scales of batch norms: Ye et al. 2018, Rethinking the Smaller-Norm-Less-Informative Assumption."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from autoprune.randomness import untouched
from autoprune.space.copying import copy_network
from autoprune.space.groups import SearchSpace
from autoprune.sparsity.base import SparsityTraining, Subject, check_number, parameters, scale_magnitudes
from autoprune.sparsity.channels import GroupChannels, weights_of
from autoprune.sparsity.proximal import soft_threshold
from autoprune.training.freezing import begin_training


@final
class IstaOnScales(SparsityTraining):
    """Proximal steps on gamma, with exact zeros; arXiv 1802.00124, section 4 and algorithm 1.

    gamma ← S(gamma - μ·g, μ·ρ·λ), where μ is the learning rate of the weights, S soft thresholding, and λ of a channel
    follows the memory that it costs: 1 + (elements that write and read it) / (positions of its map). Before, scales and
    shifts are multiplied by α and the weights that read the channels divided by it (section 4.3), which changes no
    output behind ReLU but lets gamma reach 0 sooner; where it would change outputs (other activations) or weights that
    do not train, it is left out. Weight decay and momentum do not act on gamma.

    Args:
        weight: ρ.
        rescale: α, in (0, 1]; 1 leaves the network as it is.
    """

    def __init__(self, *, weight: float = 1e-3, rescale: float = 0.1) -> None:
        check_number("ista", "weight", weight)
        check_number("ista", "rescale", rescale, most=1.0)
        self._rho, self._alpha = weight, rescale

    def set_up(self, subject: Subject) -> nn.Module:
        """See `SparsityTraining.set_up`."""
        channels = subject.channels
        scale_magnitudes(channels, parameters(subject.network), "ista")
        self._penalty = channel_memory(channels, weights_of(subject.network), subject.space)
        self._rescale(subject, self._alpha)
        self._gradients: dict[str, Tensor] = {}
        return super().set_up(subject)

    def _rescale(self, subject: Subject, alpha: float) -> None:
        network, channels = subject.network, subject.channels
        batch = next(iter(subject.batches(1)), None)
        if alpha == 1.0 or batch is None:
            return
        trial, weights = begin_training(copy_network(network), subject.recipe.freeze).eval(), weights_of(network)
        with untouched(), torch.no_grad():
            before = _flat(batch.first(8).outputs(trial))
            rescale_(weights_of(trial), channels, alpha)
            after = _flat(batch.first(8).outputs(trial))
        frozen = [name for name, weight in trial.named_parameters() if not weight.requires_grad]
        if not all(torch.equal(trial.get_parameter(name), weights[name]) for name in frozen):
            return
        if torch.allclose(before, after, rtol=1e-2, atol=1e-3 * float(before.abs().max())):
            rescale_(weights, channels, alpha)

    def after_backward(self, model: nn.Module, *, done: float) -> None:
        """Take the gradients of gamma, which the optimizer is not to see."""
        weights = parameters(model)
        self._gradients = {}
        for axis in self.subject.channels.scales:
            gradient, weights[axis.name].grad = weights[axis.name].grad, None
            if gradient is not None:
                self._gradients[axis.name] = gradient

    def after_step(self, model: nn.Module, *, done: float) -> None:
        """See `Term.after_step`."""
        weights, lr = parameters(model), self.subject.lr(done)
        padded = torch.cat([self._penalty, self._penalty.new_zeros(1)])
        for axis in self.subject.channels.scales:
            gradient = self._gradients.get(axis.name)
            if gradient is not None and bool(gradient.isfinite().all()):
                gamma = weights[axis.name]
                threshold = lr * self._rho * padded[axis.numbers].to(gamma.dtype)
                gamma.copy_(soft_threshold(gamma - lr * gradient, threshold))

    def scores(self, model: nn.Module) -> Tensor:
        """See `SparsityTraining.scores`."""
        return scale_magnitudes(self.subject.channels, parameters(model), "ista")


def channel_memory(channels: GroupChannels, weights: dict[str, Tensor], space: SearchSpace) -> Tensor:
    """(number,) λ of each channel: its map and the weights that write and read it, in units of its map."""
    elements = channels.entries(weights, [*channels.written, *channels.read])
    positions = torch.tensor([max(1, group.positions) for group in space.groups], device=elements.device)
    return 1 + elements / positions[channels.group]


def rescale_(weights: dict[str, Tensor], channels: GroupChannels, alpha: float) -> None:
    """Multiply scales and shifts of channels by alpha, and divide by it what reads them, in place."""
    scaled = ~channels.without_scale & ~channels.without_reader
    factors = torch.where(scaled, alpha, 1.0)
    channels.scale_(weights, factors, [*channels.scales, *channels.shifts])
    channels.scale_(weights, 1 / factors, channels.read)


def _flat(outputs: object) -> Tensor:
    leaves = [leaf for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
    return torch.cat([leaf.detach().reshape(-1).float() for leaf in leaves])
