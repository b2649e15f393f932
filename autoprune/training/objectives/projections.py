"""From the features of a cut network to those of the base network: a linear map where the width differs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoprune.errors import ConfigError

_RIDGE = 1e-3
"""Share of the mean second moment."""

_ROWS = 65_536
"""So many positions are fitted on, at even distances."""


@final
class Projections(nn.Module):
    """Linear maps along the axis of the channels (1 x 1 convolutions), for distillation only.

    They begin as the least-squares fit on the examples they are made with, so that they do not have to be learnt while
    the network already moves to please them.

    Args:
        given: name of a place -> features of the network in training.
        known: those of the base network.

    Raises:
        ConfigError: features that differ in more than their channels.
    """

    def __init__(self, given: Mapping[str, Tensor], known: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._axes: dict[str, int] = {}
        self.weights = nn.ParameterDict()
        for place in known:
            if place not in given or given[place].shape == known[place].shape:
                continue
            self._axes[place] = axis = _channel_axis(place, given[place], known[place])
            self.weights[_key(place)] = nn.Parameter(
                _fit(given[place].movedim(axis, -1), known[place].movedim(axis, -1))
            )

    def forward(self, place: str, features: Tensor) -> Tensor:
        """Features of one place, as wide as the base network's."""
        if place not in self._axes:
            return features
        axis, weight = self._axes[place], self.weights[_key(place)]
        return F.linear(features.movedim(axis, -1), weight.to(features.dtype)).movedim(-1, axis)


def _channel_axis(place: str, given: Tensor, known: Tensor) -> int:
    differing = [d for d, (a, b) in enumerate(zip(given.shape, known.shape, strict=False)) if a != b]
    if given.ndim != known.ndim or len(differing) != 1 or differing == [0]:
        raise ConfigError(
            f"feature_distillation: {place!r} gives {tuple(known.shape)} in the base network and {tuple(given.shape)} "
            f"in the cut one, which differ in more than their channels; name other modules in `at`"
        )
    return differing[0]


@torch.no_grad()
def _fit(given: Tensor, known: Tensor) -> Tensor:
    """(known channels, given channels) the weights of the least squares, with a small ridge."""
    x, y = given.reshape(-1, given.shape[-1]), known.reshape(-1, known.shape[-1])
    every = -(-len(x) // _ROWS)
    x, y = x[::every].double(), y[::every].double()
    second = x.T @ x / len(x)
    ridge = _RIDGE * second.diagonal().mean().clamp(min=1e-12) * torch.eye(len(second), device=x.device, dtype=x.dtype)
    fitted: Tensor = torch.linalg.solve(second + ridge, x.T @ y / len(x)).T
    return fitted.to(given.dtype).contiguous()


def _key(place: str) -> str:
    return place.replace(".", "/")
