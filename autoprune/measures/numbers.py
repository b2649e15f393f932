"""What measures of numbers as outputs have in common."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from autoprune.data.batch import Batch
from autoprune.errors import EvaluationError


def number_outputs(outputs: Any, batch: Batch, *, what: str) -> tuple[Tensor, Tensor]:
    """(N, values) outputs and targets in double precision, on one device.

    Raises:
        EvaluationError: they are no tensors of one shape.
    """
    targets = batch.targets
    fits = isinstance(outputs, Tensor) and isinstance(targets, Tensor) and outputs.shape == targets.shape
    if not fits or not outputs.is_floating_point():
        told = [f"{tuple(v.shape)}" if isinstance(v, Tensor) else type(v).__name__ for v in (outputs, targets)]
        raise EvaluationError(
            f"{what} needs outputs and targets of one shape, got {told[0]} and {told[1]}; reshape one of them in the "
            f"model or the data set"
        )
    n = len(outputs)
    return outputs.double().reshape(n, -1), targets.to(outputs.device).double().reshape(n, -1)
