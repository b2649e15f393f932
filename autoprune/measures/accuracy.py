"""Top-1 accuracy."""

from __future__ import annotations

from typing import Any, final

from torch import Tensor

from autoprune.data.batch import Batch
from autoprune.measures.base import Measure
from autoprune.training.scores import class_outputs


@final
class Accuracy(Measure):
    """Percent of examples whose highest output is that of the right class; the first one of equal outputs counts.

    Needs outputs (N, classes) and class numbers (N,) as targets.
    """

    name, unit, lowest, highest = "accuracy", "%", 0.0, 100.0

    def values(self, outputs: Any, batch: Batch, base: Any) -> Tensor:
        """Return (N,) whether each answer is right; see `Measure.values`."""
        rows = class_outputs(outputs, batch.targets)
        right: Tensor = rows.max(1).indices == batch.targets.to(rows.device)
        return right
