"""Distillation from the base network."""

from __future__ import annotations

import math
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoprune.data.batch import Batch
from autoprune.errors import ConfigError, EvaluationError
from autoprune.training.objectives.base import Objective
from autoprune.training.scores import class_outputs


@final
class Distillation(Objective):
    """alpha · T² · KL(softmax(teacher / T) || softmax(outputs / T)) + (1 - alpha) · cross entropy, means over examples.

    T² keeps the two gradients of one size whatever the temperature, as the paper says. The paper names no defaults;
    these are those of Tian et al. 2020, arXiv 1910.10699, whose study compares distillation methods. The base network,
    which has no teacher, is trained by cross entropy alone.

    Args:
        temperature: T, above 0.
        alpha: share of the teacher, 0 to 1.
        label_smoothing: of the cross entropy; that of the recipe where it is not given.

    Raises:
        ConfigError: a setting out of its range.
    """

    needs_teacher = True

    def __init__(self, *, temperature: float = 4.0, alpha: float = 0.9, label_smoothing: float = 0.0) -> None:
        if not 0 < temperature < math.inf or not 0 <= alpha <= 1 or not 0 <= label_smoothing < 1:
            raise ConfigError(
                f"distillation: temperature must be above 0, alpha from 0 to 1 and label_smoothing at least 0 and "
                f"below 1, got {temperature!r}, {alpha!r} and {label_smoothing!r}"
            )
        self._temperature, self._alpha, self._smoothing = temperature, alpha, label_smoothing

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        """See `Objective.__call__`."""
        outputs = class_outputs(batch.outputs(model), batch.targets)
        loss = F.cross_entropy(outputs, batch.targets, label_smoothing=self._smoothing)
        if self.teacher is None:
            return loss
        with torch.no_grad():
            taught = batch.outputs(self.teacher)
        if taught.shape != outputs.shape:
            raise EvaluationError(
                f"distillation: the base network gives outputs of shape {tuple(taught.shape)}, the trained one of "
                f"{tuple(outputs.shape)}; they must tell the same classes apart"
            )
        t = self._temperature
        divergence = F.kl_div(
            F.log_softmax(outputs / t, dim=1), F.log_softmax(taught / t, dim=1), reduction="batchmean", log_target=True
        )
        return self._alpha * t**2 * divergence + (1 - self._alpha) * loss
