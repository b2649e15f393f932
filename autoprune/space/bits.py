"""Bits: layers whose weights are stored as whole numbers of a few bits, and what that takes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

SCALE_BITS = 32
"""What the scale of an output takes."""


@final
@dataclass(frozen=True, slots=True)
class LayerBits:
    """A layer of which each weight is stored in as many bits as its width says; the full width is the layer as it is.

    Attributes:
        group: name of the group.
        tensor: its weights.
        shape: of them.
        full: bits of a weight as it is, 32 of float32.
        outputs: the axis that has a scale for each index: 0, or 1 for transposed convolutions.
    """

    group: str
    tensor: str
    shape: tuple[int, ...]
    full: int
    outputs: int = 0

    def stored(self, width: int) -> int:
        """Bits of all weights, and of the scales where there are some, while no channel is cut."""
        scales = 0 if width == self.full else SCALE_BITS * self.shape[self.outputs]
        return width * math.prod(self.shape) + scales
