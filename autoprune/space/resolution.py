"""Resolution: images are made smaller before the network, and what its products take then."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

RESOLUTION = "resolution"
"""Name of the group."""


@final
@dataclass(frozen=True, slots=True)
class Resolution:
    """The heights that images may have; widths of images follow in proportion.

    Attributes:
        shape: (height, width) of images as they are.
        sides: allowed heights, ascending; the last one is as they are.
        coefficients: for each height those of all products, in the order of `SearchSpace.operations`: what depends on
            positions is in these alone.
    """

    shape: tuple[int, int]
    sides: tuple[int, ...]
    coefficients: tuple[tuple[int, ...], ...]

    def size(self, side: int) -> tuple[int, int]:
        """(height, width) of images of this height."""
        height, width = self.shape
        return side, max(1, round(width * side / height))
