"""Mean squared error."""

from __future__ import annotations

from typing import final

import torch.nn.functional as F
from torch import Tensor, nn

from autoprune.data.batch import Batch
from autoprune.errors import EvaluationError
from autoprune.training.objectives.base import Objective
from autoprune.training.scores import class_outputs


@final
class MeanSquaredError(Objective):
    """Mean over examples and outputs of (output - target)²; class numbers stand for one-hot rows."""

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        """See `Objective.__call__`."""
        outputs, targets = batch.outputs(model), batch.targets
        if isinstance(targets, Tensor) and not targets.is_floating_point():
            outputs = class_outputs(outputs, targets)
            targets = F.one_hot(targets, outputs.shape[1])
        if not isinstance(outputs, Tensor) or not isinstance(targets, Tensor) or outputs.shape != targets.shape:
            raise EvaluationError(
                f"mse needs outputs and targets of one shape, got {_told(outputs)} and {_told(targets)}; "
                f"reshape one of them in the model or the data set"
            )
        return F.mse_loss(outputs, targets.to(outputs.dtype))


def _told(value: object) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__
