"""Boxes around objects."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, final

import torch
from torch import Tensor, nn

from autoprune.config.parts import NamedPart
from autoprune.config.training import Recipe
from autoprune.data.base import DataSplits
from autoprune.data.batch import Batch, Ragged
from autoprune.data.boxes import boxes_of
from autoprune.data.pairs import pair_of
from autoprune.errors import ConfigError, DataError
from autoprune.measures.base import Measure
from autoprune.measures.mean_average_precision import MeanAveragePrecision
from autoprune.registry import load_object
from autoprune.tasks.base import TaskInputs
from autoprune.tasks.identity import function_identity
from autoprune.tasks.trained import RecipeTask, read_splits
from autoprune.training.objectives.base import LossOfOutputs, Objective
from autoprune.training.objectives.detection_loss import DetectionLoss

Detections: TypeAlias = Callable[[Any, Any], Any]
"""(outputs of the network, its images) -> a mapping of boxes, scores and labels for each image."""

_OWN = "detection_loss"


@final
class DetectionTask(RecipeTask):
    """Trained by the detector's own loss, scored by the mean average precision of its boxes.

    Args:
        data: the splits; a batch is images, stacked or a list, and a mapping of boxes and labels for each.
        recipe: how networks are trained.
        measure: what scores count; one with an attribute `decode` is given `detections`.
        device: where.
        network: the full network; its methods count for traced graphs of it.
        loss: (outputs, targets) -> loss; None: see `DetectionLoss`.
        detections: see `Detections`; None: the network returns them in evaluation mode.
    """

    usual_objective = NamedPart(name=_OWN)
    scored_together = 32

    def __init__(
        self,
        data: DataSplits,
        recipe: Recipe,
        *,
        measure: Measure,
        device: torch.device,
        network: nn.Module,
        loss: Callable[[Any, Any], Any] | None = None,
        detections: Detections | None = None,
    ) -> None:
        if detections is not None and hasattr(measure, "decode"):
            measure = copy.copy(measure)
            measure.decode = detections
        super().__init__(data, recipe, measure=measure, device=device)
        self._network, self._loss, self._detections = network, loss, detections

    def new_objective(self) -> Objective:
        """The detector's own loss, unless the recipe names another objective."""
        if self._recipe.objective != self.usual_objective:
            return super().new_objective()
        if self._recipe.label_smoothing:
            raise ConfigError("training: label_smoothing is no part of a detector's loss; leave it out")
        own = DetectionLoss(loss=self._loss)
        own.stand_in = self._network
        return own

    def distilled(self) -> None:
        """See `Task.distilled`; a detector's loss knows no teacher."""

    @property
    def objective(self) -> Callable[[Any, Any], Tensor] | None:
        """See `Task.objective`; None where the detector gives its loss in training only."""
        if self._recipe.objective == self.usual_objective and self._loss is None and not hasattr(self._network, "loss"):
            return None
        return LossOfOutputs(self.new_objective(), self._recipe.objective.label)

    @property
    def identity(self) -> tuple[str, ...]:
        """See `RecipeTask.identity`."""
        return (*super().identity, *map(function_identity, (self._loss, self._detections)))


def detection(
    given: TaskInputs,
    *,
    loss: Callable[[Any, Any], Any] | str | None = None,
    detections: Detections | str | None = None,
) -> DetectionTask:
    """The task of a job: images, and for each of them a mapping of `boxes` (T, 4) and `labels` (T,).

    Boxes are corners (left, top, right, bottom) in pixels; a mapping with `bbox` (left, top, width, height) and
    `category` is taken, too. Images of one size are stacked, others are a list. Detectors of torchvision are taken as
    they are. Any other has methods `loss(outputs, targets)` and `detections(outputs, images)`, or these are given.

    Args:
        given: what every task is made from.
        loss: module:function, (outputs, targets) -> loss.
        detections: module:function, see `Detections`.

    Raises:
        ConfigError: one of them is no function, or a network that does not fit.
        DataError: images or boxes that are none.
    """
    functions: dict[str, Any] = {"loss": loss, "detections": detections}
    for role, one in functions.items():
        found = load_object(one) if isinstance(one, str) else one
        if found is not None and not callable(found):
            raise ConfigError(f"task 'detection': {role} must be a function or module:function, got {one!r}")
        functions[role] = found
    functions["detections"] = functions["detections"] or getattr(given.model, "detections", None)
    data = read_splits(given, check=_checked, collate=collate_images)
    measure = given.measure or MeanAveragePrecision()
    task = DetectionTask(data, given.recipe, measure=measure, device=given.device, network=given.model, **functions)
    return task.tried(given.model)


def collate_images(examples: Sequence[Any]) -> Batch:
    """Images, stacked where they are of one size, and what is in each of them.

    Raises:
        DataError: examples without images or boxes.
    """
    pairs = [pair_of(example, boxes_of) for example in examples]
    images = [image.get("image") if isinstance(image, Mapping) else image for image, _ in pairs]  # as `datasets` have
    return Batch(_together(images), Ragged(target for _, target in pairs))


def _together(images: Sequence[Any]) -> Any:
    if not all(isinstance(image, Tensor) and image.ndim == 3 for image in images):
        raise DataError("an image must be a tensor (C, H, W), of several columns the one named image; convert it first")
    same = len({image.shape for image in images}) == 1
    return torch.stack(list(images)) if same else (Ragged(images),)


def _checked(batch: Batch, where: str) -> Batch:
    """Images stacked or a list in a tuple, targets as mappings of boxes and labels."""
    inputs, targets = batch.inputs, batch.targets
    if isinstance(inputs, tuple | list) and inputs and isinstance(inputs[0], Tensor):
        inputs = _together(inputs)  # as the usual collation for torchvision's detectors gives them
    if not isinstance(targets, tuple | list) or not all(isinstance(one, Mapping) for one in targets):
        raise DataError(
            f"{where}: targets are {type(targets).__name__}; the task detection needs a list with a mapping of boxes "
            f"and labels for each image; give a data set without a loader, or set the loader's collate_fn"
        )
    made = Batch(inputs, Ragged(boxes_of(one) for one in targets))
    if len(made) != len(made.targets):
        raise DataError(f"{where}: {len(made)} images, and targets for {len(made.targets)}")
    for row, target in enumerate(made.targets):
        boxes = target["boxes"]
        if not boxes.isfinite().all() or bool((boxes[:, 2:] <= boxes[:, :2]).any()):
            wrong = ~boxes.isfinite().all(1) | (boxes[:, 2:] <= boxes[:, :2]).any(1)
            raise DataError(
                f"{where}, row {row}: the box {boxes[wrong][0].tolist()} is none; boxes are left, top, right, bottom "
                f"in pixels, right above left and bottom above top"
            )
    return made
