"""A class for every pixel."""

from __future__ import annotations

from functools import partial
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from autoprune.config.parts import NamedPart
from autoprune.data.batch import Batch
from autoprune.data.collated import stacked
from autoprune.data.pairs import as_tensors
from autoprune.errors import ConfigError, DataError
from autoprune.measures.mean_iou import MeanIoU
from autoprune.tasks.base import TaskInputs
from autoprune.tasks.trained import RecipeTask, read_splits
from autoprune.training.objectives.maps import IGNORED


@final
class SegmentationTask(RecipeTask):
    """Trained by the cross entropy of pixels, scored by a measure of their classes."""

    usual_objective = NamedPart(name="pixel_cross_entropy")
    scored_together = 64


def segmentation(given: TaskInputs, *, ignore_index: int | None = 255) -> SegmentationTask:
    """The task of a job: images, and for each of them a mask (H, W) of class numbers.

    The network returns logits (N, classes, H, W), or one channel for two classes; as they are, or as `out` of a mapping
    with `aux` beside it in training, as torchvision's do. It is tried on the first examples of each split.

    Args:
        given: what every task is made from.
        ignore_index: number of pixels that do not count, as the border has in PASCAL VOC; None: all but -100 do.

    Raises:
        ConfigError: an ignore_index that is no whole number, or a network that does not fit.
        DataError: masks that are none.
    """
    if ignore_index is not None and (isinstance(ignore_index, bool) or not isinstance(ignore_index, int)):
        raise ConfigError(f"task 'segmentation': ignore_index must be a whole number or null, got {ignore_index!r}")
    check = partial(_checked, ignore_index=ignore_index)
    data = read_splits(given, check=check, collate=partial(stacked, target_of=mask_of))
    task = SegmentationTask(data, given.recipe, measure=given.measure or MeanIoU(), device=given.device)
    return task.tried(given.model)


def mask_of(target: Any) -> Any:
    """A mask as numbers: of a picture its values, or the numbers of its palette."""
    if hasattr(target, "getbands") and hasattr(target, "convert"):
        if len(target.getbands()) != 1:
            raise DataError(
                f"a mask has the channels {''.join(target.getbands())}; save it with one, whose values are classes"
            )
        return torch.from_numpy(np.array(target)).long()
    return as_tensors(target)


def _checked(batch: Batch, where: str, *, ignore_index: int | None) -> Batch:
    """Masks as (N, H, W) int64, -100 where they do not count."""
    masks: Any = batch.targets
    if isinstance(masks, Tensor) and masks.ndim == 4 and masks.shape[1] == 1:
        masks = masks[:, 0]
    if not isinstance(masks, Tensor) or masks.ndim != 3 or len(masks) != len(batch):
        told = f"targets of shape {tuple(masks.shape)}" if isinstance(masks, Tensor) else type(masks).__name__
        raise DataError(f"{where}: {told}; the task segmentation needs a mask of class numbers for each, (N, H, W)")
    if masks.is_floating_point() or masks.is_complex():
        raise DataError(
            f"{where}: masks of type {masks.dtype}; class numbers are whole. If these are, convert them (mask.long())"
        )
    numbers = masks.long()
    if ignore_index is not None:
        numbers = torch.where(numbers == ignore_index, IGNORED, numbers)
    wrong = (numbers < 0) & (numbers != IGNORED)
    if wrong.any():
        row = int(wrong.flatten(1).any(1).nonzero()[0])
        raise DataError(
            f"{where}, row {row}: class number {int(numbers[wrong][0])} in a mask; allowed are 0 and more, and what "
            f"does not count: -100{'' if ignore_index is None else f' or {ignore_index}'} (the setting ignore_index)"
        )
    return Batch(batch.inputs, numbers)
