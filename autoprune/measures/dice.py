"""The Dice coefficient."""

from __future__ import annotations

from typing import final

from autoprune.measures.base import Values
from autoprune.measures.maps import OfPixels


@final
class Dice(OfPixels):
    """Mean over classes of 2 · |decided and labelled| / (|decided| + |labelled|) in percent, over all images.

    Classes that nothing is of do not count. Needs outputs (N, classes, H, W), or one channel for two classes.

    Args:
        background: whether class 0 counts.
    """

    name = "dice"

    def shares(self, right: Values, decided: Values, labelled: Values) -> Values:
        """See `OfPixels.shares`."""
        shares: Values = 2 * right / (decided + labelled)
        return shares
