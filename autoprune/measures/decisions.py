"""What measures of a classifier's decisions have in common, which are no means over examples."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from autoprune.data.batch import Batch
from autoprune.measures.base import Measure, Values, with_jackknife
from autoprune.training.scores import class_outputs


class OfDecisions(Measure):
    """A share in percent, of the right and the decided class of all examples.

    Needs outputs (N, classes) and class numbers (N,) as targets. Its standard error is that of a jackknife.
    """

    unit, lowest, highest, wide = "%", 0.0, 100.0, True

    @abstractmethod
    def share(self, right: Values, decided: Values) -> float:
        """From 0 to 1.

        Args:
            right: (N,) class numbers.
            decided: (N,) class numbers.
        """

    def values(self, outputs: Any, batch: Batch, base: Any) -> Tensor:
        """Return (N, 2) class numbers: the right one, the decided one; see `Measure.values`."""
        rows = class_outputs(outputs, batch.targets)
        return torch.stack([batch.targets.to(rows.device), rows.max(1).indices], dim=1)

    def combine(self, values: Values) -> tuple[float, float | None]:
        """See `Measure.combine`."""
        return with_jackknife(lambda rows: 100 * self.share(rows[:, 0], rows[:, 1]), values)
