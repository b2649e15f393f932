"""F1 of several labels at once."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, final, get_args

import numpy as np
from torch import Tensor

from autoprune.data.batch import Batch
from autoprune.errors import ConfigError
from autoprune.measures.base import Measure, Values, with_jackknife
from autoprune.measures.labels import apart, beside, label_outputs

Average: TypeAlias = Literal["macro", "micro"]


@final
class MultilabelF1(Measure):
    """F1 in percent, of a matrix of labels as scikit-learn's `f1_score` has it.

    Its standard error is that of a jackknife. Needs outputs (N, labels) and targets of 0 and 1 of the same shape.

    Args:
        average: "macro", the mean over labels, those that are never there and never decided count 0; or "micro", of all
            decisions together.
        threshold: a label is decided where its sigmoid is above, between 0 and 1.

    Raises:
        ConfigError: a setting out of its range.
    """

    name, unit, lowest, highest, wide = "multilabel_f1", "%", 0.0, 100.0, True

    def __init__(self, *, average: Average = "macro", threshold: float = 0.5) -> None:
        if average not in get_args(Average):
            raise ConfigError(f"multilabel_f1: average must be macro or micro, got {average!r}")
        if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 < threshold < 1:
            raise ConfigError(f"multilabel_f1: threshold must be between 0 and 1, got {threshold!r}")
        self.average, self.threshold = average, threshold

    def values(self, outputs: Any, batch: Batch, base: Any) -> Tensor:
        """Return (N, 2 L): which labels are decided, and which are there; see `Measure.values`."""
        logits, there = label_outputs(outputs, batch, what=self.name)
        return beside((logits.double().sigmoid() > self.threshold).double(), there)

    def combine(self, values: Values) -> tuple[float, float | None]:
        """See `Measure.combine`."""
        return with_jackknife(self._percent, values)

    def _percent(self, rows: Values) -> float:
        """2 · right / (decided + there); by hand, as scikit-learn reads a single column as two classes."""
        found, there = apart(rows)
        decided = found > 0
        right, named = (decided & there).sum(0), decided.sum(0) + there.sum(0)
        if self.average == "micro":
            right, named = right.sum(keepdims=True), named.sum(keepdims=True)
        return 100 * float(np.mean(2 * right / np.maximum(named, 1)))
