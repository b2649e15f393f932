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
        given = batch.targets
        targets = [objects(one) for one in given] if isinstance(given, tuple | list) else given
        loss = self._loss or getattr(model, "loss", None) or getattr(self.stand_in, "loss", None)
        if callable(loss):
            return summed(loss(batch.outputs(model), targets))
        inputs = batch.inputs if isinstance(batch.inputs, tuple) else (batch.inputs,)
        return summed(model(*inputs, targets))


def objects(target: Any) -> Any:
    """What is to be found in an image: a mapping without the rows of crowds, which are no box of one object.

    So torchvision trains on COCO, too; the measure counts nothing that is found inside a crowd. What has no row for
    each object, as the number of the image, stays.
    """
    if not isinstance(target, Mapping) or "iscrowd" not in target:
        return target
    single = target["iscrowd"] == 0
    return {
        name: value[single] if isinstance(value, Tensor) and value.shape[:1] == single.shape else value
        for name, value in target.items()
    }


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
