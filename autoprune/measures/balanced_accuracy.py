"""Balanced accuracy."""

from __future__ import annotations

from typing import final

import numpy as np

from autoprune.measures.base import Values
from autoprune.measures.decisions import OfDecisions


@final
class BalancedAccuracy(OfDecisions):
    """Mean over classes of the share of their examples that is found, in percent; classes without examples left out."""

    name = "balanced_accuracy"

    def share(self, right: Values, decided: Values) -> float:
        """See `OfDecisions.share`."""
        return float(np.mean([(decided[right == label] == label).mean() for label in np.unique(right)]))
