"""Resolution: a width is the height of images in pixels, the same for the whole network."""

from __future__ import annotations

from typing import ClassVar, final

import numpy as np

from autoprune.space.arrays import FloatArray
from autoprune.space.kinds.base import Settling
from autoprune.space.kinds.channels import Channels

_STEP = 0.95
"""Smaller than what allowed heights usually lie apart."""


@final
class Sides(Channels):
    """A height that is settled before widths scale; between two allowed ones, it counts as the lower one."""

    scales: ClassVar[bool] = False
    ranked: ClassVar[bool] = False
    label: ClassVar[str] = "pixels"

    def drawn(self, full: FloatArray, ratios: FloatArray, chances: FloatArray) -> FloatArray:
        """Return heights from half of the full ones on; one in six is full, as what lies between is rounded down."""
        return np.minimum(full * (0.5 + 0.6 * ratios), full)

    def settle(self, rows: Settling) -> None:
        """Set every height as proposed, but for what the budget demands: lower while over it, higher while below it."""
        low, high, columns = rows.low, rows.high, rows.columns
        least, most = low[:, columns].copy(), high[:, columns].copy()
        wanted = np.clip(rows.given[:, columns], least, most)
        for factor, bound in ((1 / _STEP, most), (_STEP, least)):
            while True:
                low[:, columns] = high[:, columns] = wanted
                wrong = rows.usage(high) < rows.enough if factor > 1 else rows.usage(low) > 1.0
                moving = wrong[:, None] & (wanted != bound)
                if not moving.any():
                    break
                moved = np.minimum(wanted * factor, bound) if factor > 1 else np.maximum(wanted * factor, bound)
                wanted = np.where(moving, moved, wanted)
