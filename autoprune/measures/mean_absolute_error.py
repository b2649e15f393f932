"""Mean absolute error."""

from __future__ import annotations

from typing import Any, final

from torch import Tensor

from autoprune.data.batch import Batch
from autoprune.measures.base import Measure
from autoprune.measures.numbers import number_outputs


@final
class AbsoluteError(Measure):
    """Mean over examples and outputs of |output - target|, in the unit of the targets.

    Needs outputs and targets of one shape.
    """

    name, higher_is_better, lowest = "mean_absolute_error", False, 0.0

    def values(self, outputs: Any, batch: Batch, base: Any) -> Tensor:
        """Return (N,) means over each example's outputs; see `Measure.values`."""
        found, wanted = number_outputs(outputs, batch, what=self.name)
        return (found - wanted).abs().mean(1)
