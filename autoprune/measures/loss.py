"""Cross entropy of the labels."""

from __future__ import annotations

from typing import Any, final

import torch.nn.functional as F
from torch import Tensor

from autoprune.data.batch import Batch
from autoprune.measures.base import Measure
from autoprune.training.scores import class_outputs


@final
class Loss(Measure):
    """Cross entropy per example in nats, -log softmax(outputs)[label], computed in double precision.

    Needs outputs (N, classes), which are logits, and class numbers (N,) as targets. No label smoothing, no class
    weights: those are of a training.
    """

    name, unit, higher_is_better, lowest = "loss", "nats", False, 0.0

    def values(self, outputs: Any, batch: Batch, base: Any) -> Tensor:
        """Return (N,) nats; see `Measure.values`."""
        rows = class_outputs(outputs, batch.targets).double()
        return F.cross_entropy(rows, batch.targets.to(rows.device), reduction="none")
