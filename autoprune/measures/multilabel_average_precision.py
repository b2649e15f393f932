"""Average precision of several labels at once."""

from __future__ import annotations

from typing import Any, final

import numpy as np
from torch import Tensor

from autoprune.data.batch import Batch
from autoprune.errors import EvaluationError
from autoprune.measures.base import Measure, Values, with_jackknife
from autoprune.measures.labels import apart, beside, label_outputs


@final
class MultilabelAveragePrecision(Measure):
    """Mean over labels of sum_n (recall_n - recall_(n-1)) · precision_n in percent, as scikit-learn has it.

    It knows no threshold. Labels that no example has are left out. Needs outputs (N, labels) and targets of 0 and 1 of
    the same shape; its standard error is that of a jackknife.
    """

    name, unit, lowest, highest, wide = "multilabel_average_precision", "%", 0.0, 100.0, True

    def values(self, outputs: Any, batch: Batch, base: Any) -> Tensor:
        """Return (N, 2 L): logits, and which labels are there; see `Measure.values`."""
        logits, there = label_outputs(outputs, batch, what=self.name)
        return beside(logits.double(), there)

    def combine(self, values: Values) -> tuple[float, float | None]:
        """See `Measure.combine`.

        Raises:
            EvaluationError: no example has any label.
        """
        if not apart(values)[1].any():
            raise EvaluationError(f"{self.name}: no example has any label; give examples with some")
        return with_jackknife(_percent, values)


def _percent(rows: Values) -> float:
    from sklearn.metrics import average_precision_score

    logits, there = apart(rows)
    named = there.any(0)
    found = [average_precision_score(there[:, i], logits[:, i]) for i in np.flatnonzero(named)]
    return 100 * float(np.mean(found)) if found else float("nan")
