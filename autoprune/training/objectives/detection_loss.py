"""The loss of a detector: its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, final

import torch
from torch import Tensor, nn

from autoprune.data.batch import Batch
from autoprune.errors import ConfigError, EvaluationError
from autoprune.registry import load_object
from autoprune.training.objectives.base import Objective

LossFunction: TypeAlias = Callable[[Any, Any], Any]
"""(outputs, targets) -> a scalar, or a mapping of names to scalars that are added."""


@final
class DetectionLoss(Objective):
    """What a detector loses: a function of yours, its own method `loss`, or what it returns in training.

    The function, or else the method, is called with what the network returns for the images, and the targets: a list of
    mappings of `boxes` (T, 4) and `labels` (T,), one for each image. A network without either is called with images and
    targets, as torchvision's detectors in training mode, and returns the loss. Mappings of losses are added up.

    Args:
        loss: module:function, or a function; None: the network's own.

    Raises:
        ConfigError: it is no function.
    """

    stand_in: nn.Module | None = None
    """Whose method `loss` counts for networks that lost their own, such as traced graphs."""

    def __init__(self, *, loss: LossFunction | str | None = None) -> None:
        found = load_object(loss) if isinstance(loss, str) else loss
        if found is not None and not callable(found):
            raise ConfigError(f"detection_loss: loss must be a function or module:function, got {loss!r}")
        self._loss = found

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        """See `Objective.__call__`."""
        targets = list(batch.targets) if isinstance(batch.targets, tuple | list) else batch.targets
        loss = self._loss or getattr(model, "loss", None) or getattr(self.stand_in, "loss", None)
        if callable(loss):
            return summed(loss(batch.outputs(model), targets))
        given = batch.inputs if isinstance(batch.inputs, tuple) else (batch.inputs,)
        return summed(model(*given, targets))


def summed(loss: Any) -> Tensor:
    """A scalar of one or several losses.

    Raises:
        EvaluationError: there are none.
    """
    if isinstance(loss, Mapping) and loss and all(isinstance(one, Tensor) for one in loss.values()):
        return torch.stack([one.reshape(()) for one in loss.values()]).sum()
    if isinstance(loss, Tensor):
        return loss
    raise EvaluationError(
        f"detection_loss: the detector gives {type(loss).__name__} for its loss; it must be a scalar tensor or a "
        f"mapping of them: give it a method `loss(outputs, targets)`, or the task the setting loss"
    )
