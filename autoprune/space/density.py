"""Densities: layers of which single weights go, in which pattern, and how many stay at each width."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True, slots=True)
class LayerDensity:
    """A layer of which weights can be left out; its width is a number of steps.

    What goes together is a *unit*: a weight, or a block of weights. Units are counted output by output, the taps of a
    kernel of one output after the other, neighbours along the inputs side by side.

    Attributes:
        group: name of the group.
        tensor: its weights.
        shape: of them.
        steps: the full width.
        reads: the axis of the weights that multiplies inputs: the last but the kernel, 0 for transposed convolutions.
        block: (outputs, inputs) of a unit.
        rows: units compete inside each of so many rows, which all keep the same share; 1: with all of the layer.
        pattern: as a job names it.
    """

    group: str
    tensor: str
    shape: tuple[int, ...]
    steps: int
    reads: int = 1
    block: tuple[int, int] = (1, 1)
    rows: int = 1
    pattern: str = "unstructured"

    @property
    def unit(self) -> int:
        """Weights of a unit."""
        return self.block[0] * self.block[1]

    @property
    def units(self) -> int:
        """How many there are."""
        return math.prod(self.shape) // self.unit

    @property
    def step(self) -> int:
        """Units of a step; the first step has those, too, that the others leave over."""
        return self.units // self.steps

    @property
    def fixed(self) -> int:
        """Weights that stay at every width: `fixed + per_step * width` stay."""
        return (self.units - self.step * self.steps) * self.unit

    @property
    def per_step(self) -> int:
        """Weights of a step."""
        return self.step * self.unit

    def kept(self, width: int) -> int:
        """How many weights stay."""
        return self.fixed + self.per_step * width

    @property
    def index_bits(self) -> tuple[int, float]:
        """Bits that say which weights stay: of the layer as a whole, and of each that stays.

        A bitmask of units; for N:M the place of each among its M neighbours, but where N is known and that takes more.
        """
        kept, of, _ = self.pattern.partition(":")
        place = math.ceil(math.log2(self.steps))
        if not of or (kept != "N" and int(kept) * place > self.steps):
            return self.units, 0.0
        return 0, float(place)
