"""Cross entropy."""

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
from autoprune.training.scores import class_outputs


@final
class CrossEntropy(Objective):
    """Mean of - sum_c q_c log softmax(outputs)_c, q the one-hot target smoothed towards 1 / classes.

    Args:
        label_smoothing: share of the target spread over all classes; that of the recipe where it is not given.
        class_weights: one factor per class, for the loss of its examples. The mean is taken over the number of
            examples, where torch divides by the sum of their weights, so that batches count by their examples.

    Raises:
        ConfigError: a share outside of 0 to 1, or weights that are no finite numbers of at least 0.
    """

    def __init__(self, *, label_smoothing: float = 0.0, class_weights: Sequence[float] | None = None) -> None:
        if not 0 <= label_smoothing < 1:
            raise ConfigError(f"cross_entropy: label_smoothing must be at least 0 and below 1, got {label_smoothing!r}")
        if class_weights is not None and not all(0 <= weight < math.inf for weight in class_weights):
            raise ConfigError(f"cross_entropy: class_weights must be finite and at least 0, got {list(class_weights)}")
        self._smoothing = label_smoothing
        self._weights = None if class_weights is None else torch.tensor([*class_weights], dtype=torch.float64)

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        """See `Objective.__call__`."""
        outputs, targets = class_outputs(batch.outputs(model), batch.targets), batch.targets
        if self._weights is None:
            return F.cross_entropy(outputs, targets, label_smoothing=self._smoothing)
        if len(self._weights) != outputs.shape[1]:
            raise EvaluationError(
                f"cross_entropy: {len(self._weights)} class_weights for a network of {outputs.shape[1]} classes; "
                f"give one for each"
            )
        exact = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
        self._weights = self._weights.to(exact)
        each = F.cross_entropy(exact, targets, weight=self._weights, label_smoothing=self._smoothing, reduction="none")
        return each.mean()
