"""What the two least-squares methods share: their data, and the ridge that holds a fit where data say nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from autoprune.errors import ConfigError
from autoprune.inherit.base import Statistics
from autoprune.statistics.moments import examples_of

IMAGES = 512
"""Calibration examples that weights are fitted on; more change little (docs/results/inheritance.md)."""

ROWS = 32_768
"""Positions of all examples together that are looked at, where there are so many."""


def ridge(second: Tensor, count: int) -> Tensor:
    """(groups,) what is added to the diagonal of (groups, D, D) second moments of `count` rows.

    As if there was one more row for each direction, of the mean power of all, for which the weights are right as they
    were sliced: nothing against many rows, and the slice where no row says anything.
    """
    power = second.diagonal(dim1=-2, dim2=-1).mean(dim=-1)
    least = 1e3 * torch.finfo(second.dtype).eps  # so that a factor exists where inputs repeat each other
    return power * max(1 / max(count, 1), least) + torch.finfo(second.dtype).tiny


def with_ridge(second: Tensor, added: Tensor) -> Tensor:
    """Second moments with the ridge on their diagonal."""
    return second + added[:, None, None] * torch.eye(second.shape[-1], dtype=second.dtype, device=second.device)


def calibration(method: str, statistics: Statistics, images: int) -> tuple[Sequence[Tensor], int]:
    """Batches with about so many examples together, and at how many positions of each to look.

    Raises:
        ConfigError: there are no calibration inputs.
    """
    first = statistics.needed(method, 1)
    batches = statistics.needed(method, math.ceil(images / max(examples_of(first[0]), 1)))
    return batches, math.ceil(ROWS / max(sum(map(examples_of, batches)), 1))


def check_images(method: str, images: object) -> int:
    """A number of examples.

    Raises:
        ConfigError: no whole number of at least 1.
    """
    if not isinstance(images, int) or isinstance(images, bool) or images < 1:
        raise ConfigError(f"{method}: images must be at least 1, a whole number, got {images!r}")
    return images


def expanded(indices: Tensor, taps: int) -> Tensor:
    """Columns of a channel-major axis of (channels, taps) that belong to these channels."""
    return (indices[:, None] * taps + torch.arange(taps)).flatten()
