"""Top-k accuracy."""

from __future__ import annotations

from typing import Any, final

from torch import Tensor

from autoprune.data.batch import Batch
from autoprune.errors import ConfigError, EvaluationError
from autoprune.measures.base import Measure
from autoprune.training.scores import class_outputs


@final
class TopKAccuracy(Measure):
    """Percent of examples whose right class is among the k highest outputs.

    Needs outputs (N, classes), more of them than k, and class numbers (N,) as targets.

    Args:
        k: how many answers count, at least 1.

    Raises:
        ConfigError: k below 1.
    """

    name, unit, lowest, highest = "top_k_accuracy", "%", 0.0, 100.0

    def __init__(self, *, k: int = 5) -> None:
        if not isinstance(k, int) or isinstance(k, bool) or k < 1:
            raise ConfigError(f"top_k_accuracy: k must be a whole number of at least 1, got {k!r}")
        self.k = k

    def values(self, outputs: Any, batch: Batch, base: Any) -> Tensor:
        """Return (N,) whether each right class is among the first k; see `Measure.values`.

        Raises:
            EvaluationError: no more than k classes.
        """
        rows = class_outputs(outputs, batch.targets)
        if rows.shape[1] <= self.k:
            raise EvaluationError(
                f"top_k_accuracy: with k {self.k} all of {rows.shape[1]} classes are right; choose a smaller k"
            )
        found: Tensor = (rows.topk(self.k, dim=1).indices == batch.targets.to(rows.device)[:, None]).any(1)
        return found
