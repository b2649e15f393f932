"""What measures of several labels at once have in common."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from autoprune.data.batch import Batch
from autoprune.errors import EvaluationError
from autoprune.measures.base import Values
from autoprune.training.objectives.logits import logits_of


def label_outputs(outputs: Any, batch: Batch, *, what: str) -> tuple[Tensor, Tensor]:
    """(N, L) logits and (N, L) truth values of the labels that are there, on one device.

    Raises:
        EvaluationError: outputs or targets of another shape.
    """
    logits, targets = logits_of(outputs, what=what), batch.targets
    if not isinstance(targets, Tensor) or logits.ndim != 2 or logits.shape != targets.shape:
        given = tuple(targets.shape) if isinstance(targets, Tensor) else type(targets).__name__
        raise EvaluationError(
            f"{what} needs outputs (N, labels) and targets of 0 and 1 of the same shape, got {tuple(logits.shape)} and "
            f"{given}"
        )
    return logits, targets.to(logits.device) > 0.5


def beside(logits: Tensor, there: Tensor) -> Tensor:
    """(N, 2 L) both in one row, for measures that are `wide`."""
    return torch.cat([logits, there.to(logits.dtype)], dim=1)


def apart(rows: Values) -> tuple[Values, Values]:
    """(N, L) values and (N, L) whether labels are there, of rows that `beside` made."""
    labels = rows.shape[1] // 2
    return rows[:, :labels], rows[:, labels:] > 0
