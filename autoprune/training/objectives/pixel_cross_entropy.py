"""Cross entropy of maps of classes, pixel by pixel."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoprune.data.batch import Batch
from autoprune.errors import ConfigError, EvaluationError
from autoprune.training.objectives.base import Objective
from autoprune.training.objectives.maps import IGNORED, map_outputs


@final
class PixelCrossEntropy(Objective):
    """Mean over images of the mean cross entropy of the pixels that count, and maybe 1 - the soft Dice coefficient.

    Outputs are logits (N, classes, H, W), or one channel for two classes; of a mapping `out`, and `aux`, the outputs of
    an auxiliary head as torchvision's networks have one in training (Zhao et al. 2017, PSPNet, arXiv 1612.01105,
    section 3.3). Targets (N, H, W) of -100 do not count; an image without any that does has loss 0.

    Args:
        dice: weight of 1 - 2 · sum p t / (sum p + sum t), mean over the classes of each image that are there (V-Net:
            Milletari et al. 2016, arXiv 1606.04797).
        auxiliary: weight of the loss of `aux`.
        label_smoothing: share of the target spread over all classes; that of the recipe where it is not given.
        class_weights: one factor for each class, for the cross entropy of its pixels.

    Raises:
        ConfigError: a setting out of its range.
    """

    def __init__(
        self,
        *,
        dice: float = 0.0,
        auxiliary: float = 0.5,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        for name, value in (("dice", dice), ("auxiliary", auxiliary)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise ConfigError(f"pixel_cross_entropy: {name} must be finite and at least 0, got {value!r}")
        if not 0 <= label_smoothing < 1:
            raise ConfigError(
                f"pixel_cross_entropy: label_smoothing must be at least 0 and below 1, got {label_smoothing!r}"
            )
        if class_weights is not None and not all(0 <= weight < math.inf for weight in class_weights):
            raise ConfigError(
                f"pixel_cross_entropy: class_weights must be finite and at least 0, got {list(class_weights)}"
            )
        self._dice, self._auxiliary, self._smoothing = dice, auxiliary, label_smoothing
        self._weights = None if class_weights is None else torch.tensor([*class_weights], dtype=torch.float64)

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        """See `Objective.__call__`."""
        outputs = batch.outputs(model)
        loss = self._of_map(*map_outputs(outputs, batch.targets, what="pixel_cross_entropy"))
        beside = outputs.get("aux") if isinstance(outputs, Mapping) and self._auxiliary else None
        if beside is None:
            return loss
        return loss + self._auxiliary * self._of_map(*map_outputs(beside, batch.targets, what="pixel_cross_entropy"))

    def _of_map(self, logits: Tensor, targets: Tensor) -> Tensor:
        if logits.shape[1] == 1:  # softmax of (0, x) is sigmoid of x
            logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
        if self._weights is not None and len(self._weights) != logits.shape[1]:
            raise EvaluationError(
                f"pixel_cross_entropy: {len(self._weights)} class_weights for {logits.shape[1]} classes; give one for "
                f"each"
            )
        counts = (targets != IGNORED).flatten(1)
        each = F.cross_entropy(
            logits,
            targets,
            weight=None if self._weights is None else self._weights.to(logits),
            label_smoothing=self._smoothing,
            ignore_index=IGNORED,
            reduction="none",
        )
        loss = (each.flatten(1).sum(1) / counts.sum(1).clamp(min=1)).mean()
        return loss if not self._dice else loss + self._dice * _without_overlap(logits, targets, counts)


def _without_overlap(logits: Tensor, targets: Tensor, counts: Tensor) -> Tensor:
    """Mean over images of 1 - the soft Dice coefficient, the mean over their classes."""
    shares = logits.softmax(1).flatten(2) * counts[:, None]
    there = F.one_hot(targets.flatten(1).clamp(min=0), logits.shape[1]).transpose(1, 2) * counts[:, None]
    overlap = 2 * (shares * there).sum(2) / (shares.sum(2) + there.sum(2)).clamp(min=1e-6)
    named = there.sum(2) > 0
    return (1 - (overlap * named).sum(1) / named.sum(1).clamp(min=1)).mean()
