"""Least squares by numpy, on matrices put together by running a layer with one weight at a time."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn


def columns(layer: nn.Module, weight: str, inputs: Tensor, channel_dim: int) -> Tensor:
    """(weights, outputs, rows): what the layer gives where this one weight is 1, all others and the bias 0."""
    alone = copy.deepcopy(layer)
    state = dict(alone.named_parameters())
    with torch.no_grad():
        for parameter in state.values():
            parameter.zero_()
        found = []
        for index in range(state[weight].numel()):
            state[weight].view(-1)[index] = 1.0
            found.append(alone(inputs).movedim(channel_dim, 0).flatten(1))
            state[weight].view(-1)[index] = 0.0
    return torch.stack(found)


@dataclass
class Problem:
    """One layer of a cut network, to be fitted to what it gave in the dense one.

    Attributes:
        layer: as it was sliced.
        inputs: what it gets.
        wanted: its outputs in the dense network.
        channel_dim: of inputs and outputs.
        weight: name of its weight.
        constant: a constant is fitted, too.
        dense: the layer and its inputs that say how strong the ridge is.
    """

    layer: nn.Module
    inputs: Tensor
    wanted: Tensor
    channel_dim: int
    dense: tuple[nn.Module, Tensor]
    constant: bool
    weight: str = "weight"

    def outputs(self) -> np.ndarray:
        """(outputs, rows) what the best weights give."""
        mine = columns(self.layer, self.weight, self.inputs, self.channel_dim).numpy()
        dense = columns(self.dense[0], self.weight, self.dense[1], self.channel_dim).numpy()
        reached, reached_dense = (
            columns(layer, self.weight, torch.randn_like(given), self.channel_dim).abs().sum(2).numpy() > 0
            for layer, given in ((self.layer, self.inputs), self.dense)
        )
        sliced = dict(self.layer.named_parameters())[self.weight].detach().flatten().numpy()
        wanted = self.wanted.detach().movedim(self.channel_dim, 0).flatten(1).numpy()
        found = []
        for output in range(len(wanted)):
            power = dense[reached_dense[:, output], output]
            power = power - power.mean(axis=1, keepdims=True) if self.constant else power
            ridge = (
                len(power) * (power**2).mean() / wanted.shape[1]
            )  # a row more for each input, of the mean power in each
            own = reached[:, output]
            design, towards = mine[own, output].T, sliced[own]
            n, size = design.shape
            top = np.hstack([design, np.ones((n, 1))]) if self.constant else design
            below = np.hstack([np.eye(size), np.zeros((size, 1))]) if self.constant else np.eye(size)
            strength = np.sqrt(n * ridge)
            solved, *_ = np.linalg.lstsq(
                np.vstack([top, strength * below]), np.concatenate([wanted[output], strength * towards]), rcond=None
            )
            found.append(top @ solved)
        return np.stack(found)
