"""The allowed widths of all groups, for many rows at once: rounding, the next notch, all members."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import numpy as np

from autoprune.cost.budget.budget import BAND
from autoprune.cost.polynomial import log_widths
from autoprune.space.groups import BoolArray, FloatArray, IntArray, SearchSpace


@final
class Notches:
    """Allowed widths, group by group; matrices are (N, G)."""

    def __init__(self, space: SearchSpace) -> None:
        self.choices = [np.array(group.choices) for group in space.groups]

    def round_down(self, target: FloatArray) -> IntArray:
        """The largest choice of every entry that is not above it; the smallest where there is none."""
        columns = []
        for group, choices in enumerate(self.choices):
            index = np.searchsorted(choices, target[:, group], side="right") - 1
            columns.append(choices[np.maximum(index, 0)])
        return np.stack(columns, axis=1).astype(np.int64)

    def next(self, widths: IntArray) -> IntArray:
        """The next larger choice of every entry; the entry itself where it is full."""
        columns = []
        for group, choices in enumerate(self.choices):
            index = np.searchsorted(choices, widths[:, group], side="right")
            columns.append(choices[np.minimum(index, len(choices) - 1)])
        return np.stack(columns, axis=1).astype(np.int64)

    def one_less(self, widths: IntArray, low: FloatArray, frozen: BoolArray | None) -> IntArray:
        """(G, G) the (1, G) widths with the next smaller choice of one group each, where that is allowed."""
        lowered = np.repeat(widths, len(self.choices), axis=0)
        for group, choices in enumerate(self.choices):
            index = int(np.searchsorted(choices, lowered[group, group]))
            if index > 0 and choices[index - 1] >= low[0, group] and not (frozen is not None and frozen[group]):
                lowered[group, group] = choices[index - 1]
        return lowered

    def members(self, most: int, inside: Callable[[IntArray], BoolArray]) -> IntArray | None:
        """All members that are inside; None where a matrix of them would have more than `most` entries.

        What is outside at some widths is taken to be so at larger ones.
        """
        found: IntArray = np.array([[choices[0] for choices in self.choices]])
        for group, choices in enumerate(self.choices):
            if len(found) * len(choices) * len(self.choices) > most:
                return None
            found = np.repeat(found, len(choices), axis=0)
            found[:, group] = np.tile(choices, len(found) // len(choices))
            found = found[inside(found)]
        return found

    def allowed(self, rows: IntArray) -> BoolArray:
        """(N,) True where every entry is a choice."""
        found: BoolArray = (self.round_down(rows.astype(np.float64)) == rows).all(axis=1)
        return found


def closest(members: IntArray, usage: FloatArray, targets: FloatArray) -> IntArray:
    """For each target the member in the band with the closest ratios of widths; without a band, of the fullest."""
    members = members[usage >= min(BAND, usage.max())]
    logs = log_widths(members)
    lengths = np.square(logs).sum(axis=1)
    # |logs - t|² without the constant |t|²
    nearest = [np.argmin(lengths - 2.0 * (logs @ t)) for t in log_widths(targets)]
    found: IntArray = members[nearest]
    return found
