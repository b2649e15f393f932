"""How often a network decides as the base network does."""

from __future__ import annotations

from typing import Any, final

from torch import Tensor

from autoprune.data.batch import Batch
from autoprune.errors import EvaluationError
from autoprune.measures.base import Measure


@final
class Agreement(Measure):
    """Percent of examples whose highest output is the base network's; needs no labels.

    Outputs are (N, classes); whether the base network is right does not matter.
    """

    name, unit, lowest, highest = "agreement", "%", 0.0, 100.0
    needs_targets, needs_base = False, True

    def values(self, outputs: Any, batch: Batch, base: Any) -> Tensor:
        """Return (N,) whether the decisions are equal; see `Measure.values`.

        Raises:
            EvaluationError: outputs that are no row of at least two numbers per example.
        """
        for given in (outputs, base):
            if not isinstance(given, Tensor) or given.ndim != 2 or given.shape[1] < 2:
                told = f"shape {tuple(given.shape)}" if isinstance(given, Tensor) else f"type {type(given).__name__}"
                raise EvaluationError(
                    f"agreement compares decisions between classes, outputs (N, classes), got outputs of {told}; "
                    f"choose the measure divergence"
                )
        decided: Tensor = outputs.max(1).indices == base.max(1).indices
        return decided
