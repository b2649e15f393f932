"""Any measure, of the logits among what a network returns."""

from __future__ import annotations

from typing import Any, final

from torch import Tensor

from autoprune.data.batch import Batch
from autoprune.measures.base import Measure, Values
from autoprune.training.objectives.logits import logits_of


@final
class OfLogits(Measure):
    """Lets a measure look at the logits of outputs that hold more than a tensor, as those of transformers do.

    Args:
        measure: of tensors of logits; name, unit, direction and how values are combined are its own.
    """

    def __init__(self, measure: Measure) -> None:
        self._measure = measure
        self.name, self.unit, self.higher_is_better = measure.name, measure.unit, measure.higher_is_better
        self.needs_targets, self.needs_base = measure.needs_targets, measure.needs_base
        self.lowest, self.highest = measure.lowest, measure.highest
        self.wide = measure.wide
        self._settings = dict(vars(measure))  # told apart by them, as a measure by itself is

    def values(self, outputs: Any, batch: Batch, base: Any) -> Tensor:
        """See `Measure.values`."""
        reference = logits_of(base, what=self.name) if self.needs_base else None
        return self._measure.values(logits_of(outputs, what=self.name), batch, reference)

    def combine(self, values: Values) -> tuple[float, float | None]:
        """See `Measure.combine`."""
        return self._measure.combine(values)

    @property
    def is_mean(self) -> bool:
        """See `Measure.is_mean`."""
        return self._measure.is_mean

    def settled(self, outputs: Any) -> OfLogits:
        """See `Measure.settled`."""
        return OfLogits(self._measure.settled(logits_of(outputs, what=self.name)))

    def sound(self, outputs: Any, examples: int) -> Tensor:
        """See `Measure.sound`."""
        return self._measure.sound(logits_of(outputs, what=self.name), examples)
