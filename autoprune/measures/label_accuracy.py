"""Accuracy over labels."""

from __future__ import annotations

from typing import Any, final

from torch import Tensor

from autoprune.data.batch import Batch
from autoprune.measures.base import Measure
from autoprune.measures.labels import label_outputs


@final
class LabelAccuracy(Measure):
    """Percent of labels, over all examples, that are decided right: a logit above 0 says that the label is there.

    Needs outputs (N, labels) and targets of 0 and 1 of the same shape.
    """

    name, unit, lowest, highest = "label_accuracy", "%", 0.0, 100.0

    def values(self, outputs: Any, batch: Batch, base: Any) -> Tensor:
        """Return (N,) percent of each example's labels; see `Measure.values`."""
        logits, there = label_outputs(outputs, batch, what=self.name)
        return 100 * ((logits > 0) == there).double().mean(1)
