"""Discrimination-aware channel pruning: Zhuang et al. 2018, arXiv 1810.11809, equation 6 and algorithm 2."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from autoprune.errors import ConfigError, EvaluationError
from autoprune.importance.channel_axes import ChannelAxis, axes_of, channel_sums
from autoprune.importance.evidence import criterion
from autoprune.importance.examples import ExampleBatch
from autoprune.importance.network import NetworkEvidence
from autoprune.space.cutting.slicing import tensor_of


@criterion("losses")
def dcp(
    network: NetworkEvidence,
    rng: np.random.Generator,
    *,
    weight: float = 1.0,
    rounds: int = 4,
    steps: int = 1,
    lr: float = 0.01,
    examples: int | None = 128,
) -> Tensor:
    """(channels,) from how early the channel is taken up, by ‖∂(L_M + λ L_S)/∂W_j‖_F over the weights that read it.

    Group by group: the reading weights of all channels are set to 0; each round takes up the channels with the largest
    norms, a share 1 / rounds of the group, gives them their weights back and trains those. L_M is half the mean squared
    difference of the readers' outputs from those of the whole network, L_S the loss. A channel taken up in round t
    scores (rounds - t + its norm / the largest norm of the round) / rounds, t from 1; a norm of 0 scores 0. One round
    ranks by the first gradient alone.

    Departures: L_S is the network's own loss, behind the layers that follow (the paper's last stage), so that no
    auxiliary classifiers are trained; several channels are taken up at once; weights stand at their trained values when
    taken up.

    Labelled data. For each group rounds × (1 + steps) forward and backward passes over the examples, one forward.

    Args:
        network: the network.
        rng: not used.
        weight: λ.
        rounds: how many times channels are taken up.
        steps: of gradient descent on the weights that read what was taken up, after each round but the last.
        lr: its learning rate.
        examples: how many examples to use at most; None: all.

    Raises:
        ConfigError: a setting out of range.
        EvaluationError: channels whose readers cannot be seen, or whose reading weights are tied to the writing ones.
    """
    if rounds < 1 or steps < 0 or not (math.isfinite(lr) and lr > 0 and math.isfinite(weight) and weight >= 0):
        raise ConfigError(
            f"rounds must be at least 1, steps and weight at least 0 and lr above 0, "
            f"got {rounds}, {steps}, {weight} and {lr}"
        )
    batches = network.examples(examples)
    axes = axes_of(network.model, network.space, network.slots, "read")
    scores = torch.zeros(network.channels, dtype=torch.float64)
    written = axes_of(network.model, network.space, network.slots, "written")
    for part, name in zip(network.sets, network.names, strict=True):
        if not any(_inside(axis.numbers, part) for axis in written):
            raise EvaluationError(
                f"dcp sets the weights that read group {name!r} to 0, and they are tied to those that write it: choose "
                f"another criterion, or exclude that group"
            )
        layer = _Layer(network, [axis for axis in axes if _inside(axis.numbers, part)], part, batches, weight)
        scores[part] = _taken_up(layer, part.stop - part.start, rounds, steps, lr)
        layer.open(torch.ones(part.stop - part.start, dtype=torch.bool))
    return scores


def _taken_up(layer: _Layer, width: int, rounds: int, steps: int, lr: float) -> Tensor:
    scores, kept = torch.zeros(width, dtype=torch.float64), torch.zeros(width, dtype=torch.bool)
    layer.close(~kept)
    for number in range(1, rounds + 1):
        left = (~kept).nonzero().flatten()
        if not len(left):
            break
        norms = layer.norms()[left]
        shares = norms / norms.max().clamp(min=1e-300)
        taken = left[shares.argsort(descending=True, stable=True)[: math.ceil(width / rounds)]]
        scores[left] = torch.where(norms > 0, (rounds - number + shares) / rounds, 0.0)
        kept[taken] = True
        if number < rounds:
            layer.open(torch.zeros(width, dtype=torch.bool).index_fill(0, taken, True))
            for _ in range(steps):
                layer.descend(kept, lr)
    return scores


@final
class _Layer:
    """The weights that read one set of channels, in a network whose other weights stay, and L_M + λ L_S by them.

    Args:
        network: the network, whole.
        axes: where the channels of the set lie in the weights that read them.
        part: the set.
        batches: the data.
        weight: λ.
    """

    def __init__(
        self, network: NetworkEvidence, axes: list[ChannelAxis], part: slice, batches: list[ExampleBatch], weight: float
    ) -> None:
        self._network, self._axes, self._part, self._batches, self._weight = network, axes, part, batches, weight
        self._weights = {axis.name: tensor_of(network.model, axis.name) for axis in axes}
        self._before = {name: tensor.detach().clone() for name, tensor in self._weights.items()}
        with torch.no_grad():
            self._targets = [self._run(batch)[1] for batch in batches]

    def norms(self) -> Tensor:
        """(width,) Frobenius norms of the gradient over the weights that read each channel."""
        squares = {name: gradient.double().square() for name, gradient in self._gradients().items()}
        return channel_sums(self._axes, squares, self._network.slots.number)[self._part].sqrt().cpu()

    def close(self, chosen: Tensor) -> None:
        """Set the weights that read these channels, (width,) of them true, to 0."""
        with torch.no_grad():
            for name, inside in self._entries(chosen):
                self._weights[name].masked_fill_(inside, 0.0)

    def open(self, chosen: Tensor) -> None:
        """Give the weights back that read these channels."""
        with torch.no_grad():
            for name, inside in self._entries(chosen):
                self._weights[name].copy_(torch.where(inside, self._before[name], self._weights[name]))

    def descend(self, chosen: Tensor, lr: float) -> None:
        """One step of gradient descent on the weights that read these channels."""
        gradients = self._gradients()
        with torch.no_grad():
            for name, inside in self._entries(chosen):
                self._weights[name].sub_(lr * gradients[name] * inside)

    def _gradients(self) -> dict[str, Tensor]:
        total = {name: torch.zeros_like(weight) for name, weight in self._weights.items()}
        whole = sum(batch.number for batch in self._batches)
        for batch, targets in zip(self._batches, self._targets, strict=True):
            outputs, made = self._run(batch)
            loss = self._weight * self._network.loss_of(outputs, batch)
            for one, target in zip(made, targets, strict=True):
                loss = loss + (one - target).square().mean() / 2
            found = torch.autograd.grad(loss, list(self._weights.values()), allow_unused=True)
            for name, gradient in zip(self._weights, found, strict=True):
                if gradient is not None:
                    total[name] += gradient * (batch.number / whole)
        return total

    def _run(self, batch: ExampleBatch) -> tuple[Any, list[Tensor]]:
        """What the network gives, and what the readers of the set do."""
        read: list[tuple[Tensor, Tensor]] = []
        outputs = self._network.run(batch, read=read)
        return outputs, [made for numbers, made in read if _inside(numbers, self._part)]

    def _entries(self, chosen: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Of each axis, True at the entries of its weight that read one of these channels, shaped to broadcast."""
        values = torch.zeros(self._network.slots.number, dtype=torch.bool)
        values[self._part] = chosen
        for axis in self._axes:
            weight = self._weights[axis.name]
            yield axis.name, axis.factors(values.to(weight.device), weight.ndim)


def _inside(numbers: Tensor, part: slice) -> bool:
    return bool(((numbers >= part.start) & (numbers < part.stop)).any())
