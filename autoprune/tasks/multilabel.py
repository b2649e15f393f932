"""Labelled examples, several labels each."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor

from autoprune.config.parts import NamedPart
from autoprune.data.batch import Batch
from autoprune.errors import DataError
from autoprune.measures.divergence import of_numbers
from autoprune.measures.multilabel_average_precision import MultilabelAveragePrecision
from autoprune.tasks.base import TaskInputs
from autoprune.tasks.trained import RecipeTask, read_splits


@final
class MultilabelTask(RecipeTask):
    """Trained by binary cross entropy on examples that have any number of labels each, scored by a measure."""

    usual_objective = NamedPart(name="binary_cross_entropy")


def multilabel(given: TaskInputs) -> MultilabelTask:
    """The task of a job: inputs of any nesting, and for each example a row of 0 and 1, one for each label.

    The network returns a row of logits for each example; it is tried on the first ones of each split.
    """
    data = read_splits(given, check=_checked)
    measure = of_numbers(given.measure) or MultilabelAveragePrecision()
    return MultilabelTask(data, given.recipe, measure=measure, device=given.device).tried(given.model)


def _checked(batch: Batch, where: str) -> Batch:
    """Targets as floating 0 and 1."""
    targets: Any = batch.targets
    if not isinstance(targets, Tensor) or targets.ndim != 2 or len(targets) != len(batch):
        told = f"targets of shape {tuple(targets.shape)}" if isinstance(targets, Tensor) else type(targets).__name__
        raise DataError(
            f"{where}: {told}; the task multilabel needs a row of 0 and 1 for each example, (N, labels). Of class "
            f"numbers make rows (torch.nn.functional.one_hot), or choose the task classification"
        )
    wrong = ((targets != 0) & (targets != 1)).any(1)
    if wrong.any():
        row = int(wrong.nonzero()[0])
        raise DataError(f"{where}, row {row}: targets {targets[row].tolist()[:20]}; each must be 0 or 1")
    return Batch(batch.inputs, targets.to(torch.float32))
