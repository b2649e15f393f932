"""Images that are made smaller before a network sees them."""

from __future__ import annotations

from typing import Any, final

import torch.nn.functional as F
from torch import Tensor, nn

from autoprune.errors import EvaluationError
from autoprune.space.groups import SearchSpace, Widths
from autoprune.space.resolution import RESOLUTION, Resolution


@final
class ResizedImages:
    """Before a network is called: its first input, (N, C, H, W), bilinear, corners not aligned.

    Args:
        size: (height, width).
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size

    def __call__(self, network: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the inputs, the first one resized."""
        if not given or not isinstance(given[0], Tensor) or given[0].ndim != 4:
            raise EvaluationError("a network of another resolution is called with images (N, C, H, W) as first input")
        return (F.interpolate(given[0], size=self.size, mode="bilinear", align_corners=False), *given[1:])


def put_resolution(network: nn.Module, resolution: Resolution, side: int) -> None:
    """Let a network see images of this height; as they are, nothing is done."""
    if side != resolution.sides[-1]:
        network.register_forward_pre_hook(ResizedImages(resolution.size(side)))


def side_of(space: SearchSpace, widths: Widths) -> int | None:
    """The height of images at these widths; None where they are as they are."""
    if space.resolution is None:
        return None
    side = space.by_name(widths)[RESOLUTION]
    return None if side == space.resolution.sides[-1] else side
