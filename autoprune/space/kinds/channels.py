"""Channels: a width is how many of them are kept, and any ratio will do."""

from __future__ import annotations

import numpy as np

from autoprune.space.arrays import BoolArray, FloatArray
from autoprune.space.kinds.base import Kind, Settling


class Channels(Kind):
    """Widths that scale."""

    def drawn(self, full: FloatArray, ratios: FloatArray, chances: FloatArray) -> FloatArray:
        """Return the ratios of the full widths."""
        return ratios * full

    def mutated(self, parents: FloatArray, chosen: BoolArray, steps: FloatArray) -> FloatArray:
        """Return widths that steps of their logarithms lead to."""
        mutated: FloatArray = parents * np.exp(steps)
        return mutated

    def log_ratios(self, ratios: FloatArray) -> FloatArray:
        """Return the logarithms."""
        logs: FloatArray = np.log(ratios)
        return logs

    def from_log_ratios(self, logs: FloatArray, full: FloatArray) -> FloatArray:
        """Return real widths, whole where the logarithm is that of a whole one."""
        widths = np.exp(np.minimum(logs, 0.0)) * full
        whole = np.rint(widths)
        exact: FloatArray = np.where(
            np.abs(widths - whole) < 1e-9 * whole, whole, widths
        )  # exp undoes log but for this
        return exact

    def moved(self, logs: FloatArray, steps: FloatArray, chosen: BoolArray) -> FloatArray:
        """Return where all their steps lead to."""
        return logs + steps

    def near(self, logs: FloatArray, centre: FloatArray, distance: float) -> FloatArray:
        """Return them clipped to the distance."""
        clipped: FloatArray = np.clip(logs, centre - distance, centre + distance)
        return clipped

    def settle(self, rows: Settling) -> None:
        """Leave the bounds: channels scale."""
