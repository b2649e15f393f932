"""Residual blocks: a width is 1 or 0, the block is there or left out; a proposal from 0.5 on means that it is there."""

from __future__ import annotations

import math
from typing import final

import numpy as np

from autoprune.space.arrays import BoolArray, FloatArray
from autoprune.space.kinds.base import Kind, Settling

_OFF = 0.25
"""The ratio as which a block that is off has a logarithm; the middle between on and off is 0.5."""


@final
class Blocks(Kind):
    """Switches: they come and go as a budget demands, and are settled before widths scale."""

    least = 0
    scales = False
    switches = True
    ranked = False

    def drawn(self, full: FloatArray, ratios: FloatArray, chances: FloatArray) -> FloatArray:
        """Return 0.5 and more for what is there."""
        return chances + 0.5

    def mutated(self, parents: FloatArray, chosen: BoolArray, steps: FloatArray) -> FloatArray:
        """Return the parents with the chosen ones switched over."""
        return np.where(chosen, 1.0 - parents, parents)

    def log_ratios(self, ratios: FloatArray) -> FloatArray:
        """Return 0 where it is on, and the logarithm of a quarter where it is off."""
        logs: FloatArray = np.log(np.maximum(ratios, _OFF))
        return logs

    def from_log_ratios(self, logs: FloatArray, full: FloatArray) -> FloatArray:
        """Return 1 from the middle on, else 0."""
        return self.decided(np.exp(np.minimum(logs, 0.0)))

    def moved(self, logs: FloatArray, steps: FloatArray, chosen: BoolArray) -> FloatArray:
        """Return them with the chosen ones switched over: a small step would change nothing."""
        return np.where(chosen, np.where(logs < math.log(0.5), 0.0, math.log(_OFF)), logs)

    def near(self, logs: FloatArray, centre: FloatArray, distance: float) -> FloatArray:
        """Return them as they are: a block is there or not."""
        return logs

    def decided(self, proposals: FloatArray) -> FloatArray:
        """Return 1 for 0.5 and more, else 0."""
        return (proposals >= 0.5).astype(np.float64)

    def settle(self, rows: Settling) -> None:
        """Switch every block on or off: as proposed, but for what the budget demands.

        While a row has room for more at its largest, the block with the highest proposal comes; while it is over the
        budget at its smallest, the one with the lowest goes. Of equal ones the cheapest comes and the costliest goes.
        """
        low, high, columns = rows.low, rows.high, rows.columns
        wanted = np.where(low[:, columns] > 0, np.inf, rows.given[:, columns])  # pinned ones stay
        cheap = np.argsort(rows.uses[columns], kind="stable")
        rank = np.empty(wanted.shape, dtype=np.int64)
        rank[:, cheap] = np.argsort(np.argsort(-wanted[:, cheap], axis=1, kind="stable"), axis=1)
        number = (wanted >= 0.5).sum(axis=1)
        for step in (1, -1):
            wrong = np.ones(len(wanted), dtype=np.bool_)
            while wrong.any():
                low[:, columns] = high[:, columns] = rank < number[:, None]
                more, fewer = number < len(columns), number > 0
                under, over = rows.usage(high) < rows.enough, rows.usage(low) > 1.0
                wrong = more & under if step > 0 else fewer & over
                number += step * wrong
