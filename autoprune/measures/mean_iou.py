"""Mean intersection over union."""

from __future__ import annotations

from typing import final

from autoprune.measures.base import Values
from autoprune.measures.maps import OfPixels


@final
class MeanIoU(OfPixels):
    """Mean over classes of |decided and labelled| / |decided or labelled| in percent, of the pixels of all images.

    Classes that nothing is of do not count. Needs outputs (N, classes, H, W), or one channel for two classes.

    Args:
        background: whether class 0 counts.
    """

    name = "mean_iou"

    def shares(self, right: Values, decided: Values, labelled: Values) -> Values:
        """See `OfPixels.shares`."""
        shares: Values = right / (decided + labelled - right)
        return shares
