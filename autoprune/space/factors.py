"""Low-rank factors: layers whose weights become the product of two, and what is left of them at each rank."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True, slots=True)
class LayerFactors:
    """A layer that two of lower rank can take the place of; its full width is the layer itself.

    Attributes:
        group: name of the group.
        layer: path of its module.
        tensor: its weights.
        shape: of them: outputs, inputs, kernel.
        uses: how often each weight is multiplied in a pass of the example.
    """

    group: str
    layer: str
    tensor: str
    shape: tuple[int, ...]
    uses: int

    @property
    def dense(self) -> int:
        """Weights of the layer."""
        return math.prod(self.shape)

    @property
    def per_rank(self) -> int:
        """Weights of both factors for each rank: the first has the kernel, the second is 1 x 1."""
        return self.dense // self.shape[0] + self.shape[0]

    @property
    def highest(self) -> int:
        """The highest rank at which both factors have fewer weights than the layer; the full width is one more."""
        return (self.dense - 1) // self.per_rank

    def kept(self, width: int) -> int:
        """How many weights there are."""
        return min(self.per_rank * width, self.dense)
