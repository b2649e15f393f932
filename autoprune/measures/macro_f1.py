"""Macro F1."""

from __future__ import annotations

from typing import final

from autoprune.measures.base import Values
from autoprune.measures.decisions import OfDecisions


@final
class MacroF1(OfDecisions):
    """Mean over classes of F1 = 2 · right / (decided + there) in percent, as scikit-learn's `f1_score` has it.

    Classes that neither targets nor decisions name do not count.
    """

    name = "macro_f1"

    def share(self, right: Values, decided: Values) -> float:
        """See `OfDecisions.share`."""
        from sklearn.metrics import f1_score

        return float(f1_score(right, decided, average="macro", zero_division=0))
