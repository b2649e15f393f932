"""Maps of classes: outputs that fit their targets pixel by pixel."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from autoprune.errors import EvaluationError
from autoprune.training.objectives.logits import logits_of

IGNORED = -100
"""A target that does not count, as in torch's cross entropy."""


def map_outputs(outputs: Any, targets: Any, *, what: str) -> tuple[Tensor, Tensor]:
    """(N, C, H, W) logits and (N, H, W) class numbers on one device, C of 1 or more; also of more or fewer axes.

    Args:
        outputs: the logits, or `out` or `logits` of a mapping, as torchvision's networks return them.
        targets: class numbers, -100 where they do not count.
        what: asks for them, for messages.

    Raises:
        EvaluationError: they do not fit, or a class number is beyond the channels.
    """
    logits = logits_of(outputs, what=what)
    fits = isinstance(targets, Tensor) and not targets.is_floating_point() and logits.ndim == targets.ndim + 1 >= 3
    if not fits or logits.shape[:1] + logits.shape[2:] != targets.shape:
        given = f"{targets.dtype} {tuple(targets.shape)}" if isinstance(targets, Tensor) else type(targets).__name__
        raise EvaluationError(
            f"{what} needs outputs (N, classes, H, W) and class numbers (N, H, W), got {tuple(logits.shape)} and "
            f"{given}; let the network return maps of the size of the masks"
        )
    targets = targets.to(logits.device)
    classes = max(2, logits.shape[1])
    if targets.device.type == "cpu" and int(targets.max()) >= classes:  # a GPU is not waited for
        raise EvaluationError(
            f"{what}: class number {int(targets.max())} for a network that tells {classes} classes apart; give it more "
            f"outputs, or set the task's ignore_index to the number of pixels that do not count"
        )
    return logits, targets
