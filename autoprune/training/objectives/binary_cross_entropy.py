"""Cross entropy of labels that are there or not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoprune.data.batch import Batch
from autoprune.errors import ConfigError, EvaluationError
from autoprune.training.objectives.base import Objective
from autoprune.training.objectives.logits import logits_of


@final
class BinaryCrossEntropy(Objective):
    """Mean over examples and labels of - t log sigmoid(output) - (1 - t) log sigmoid(-output).

    Outputs and targets are of one shape; targets t are from 0 to 1.

    Args:
        label_smoothing: targets become t · (1 - smoothing) + smoothing / 2; that of the recipe where it is not given.
        positive_weights: one factor for each label, of the loss where it is there: above 1 for labels that seldom are.

    Raises:
        ConfigError: a share outside of 0 to 1, or weights that are no finite numbers of at least 0.
    """

    def __init__(self, *, label_smoothing: float = 0.0, positive_weights: Sequence[float] | None = None) -> None:
        if not 0 <= label_smoothing < 1:
            raise ConfigError(
                f"binary_cross_entropy: label_smoothing must be at least 0 and below 1, got {label_smoothing!r}"
            )
        if positive_weights is not None and not all(0 <= weight < math.inf for weight in positive_weights):
            raise ConfigError(
                f"binary_cross_entropy: positive_weights must be finite and at least 0, got {list(positive_weights)}"
            )
        self._smoothing = label_smoothing
        self._weights = None if positive_weights is None else torch.tensor([*positive_weights], dtype=torch.float64)

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        """See `Objective.__call__`."""
        outputs, targets = logits_of(batch.outputs(model), what="binary_cross_entropy"), batch.targets
        if not isinstance(targets, Tensor) or outputs.shape != targets.shape:
            given = tuple(targets.shape) if isinstance(targets, Tensor) else type(targets).__name__
            raise EvaluationError(
                f"binary_cross_entropy needs outputs and targets of one shape, got {tuple(outputs.shape)} and {given}; "
                f"give each example 0 or 1 for each label"
            )
        if self._weights is not None and len(self._weights) != outputs.shape[-1]:
            raise EvaluationError(
                f"binary_cross_entropy: {len(self._weights)} positive_weights for {outputs.shape[-1]} labels; give one "
                f"for each"
            )
        weights = None if self._weights is None else self._weights.to(outputs)
        smooth = targets.to(outputs.dtype) * (1 - self._smoothing) + self._smoothing / 2
        return F.binary_cross_entropy_with_logits(outputs, smooth, pos_weight=weights)
