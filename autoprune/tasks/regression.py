"""Numbers as targets."""

from __future__ import annotations

from functools import partial
from typing import Any, final

import torch
from torch import Tensor

from autoprune.config.parts import NamedPart
from autoprune.data.batch import Batch
from autoprune.errors import DataError
from autoprune.measures.divergence import of_numbers
from autoprune.measures.mean_squared_error import SquaredError
from autoprune.space.copying import copy_network
from autoprune.tasks.base import TaskInputs
from autoprune.tasks.outputs import FIRST, outputs_for
from autoprune.tasks.trained import RecipeTask, read_splits


@final
class RegressionTask(RecipeTask):
    """Trained by the mean squared error on examples with numbers as targets, scored by a measure."""

    usual_objective = NamedPart(name="mse")
    usual_teaching = NamedPart(name="relative_error")


def regression(given: TaskInputs) -> RegressionTask:
    """The task of a job: inputs of any nesting, and numbers of the shape of what the network returns for them.

    One number for each example may be a plain number, also where the network returns a column (N, 1). The network is
    tried on the first examples of each split.
    """
    data = read_splits(given, check=partial(_checked, column=False))
    first = next(data.train.batches(FIRST, limit=FIRST))
    outputs = outputs_for(copy_network(given.model).eval(), first)
    if isinstance(outputs, Tensor) and outputs.shape == (len(first), 1) and first.targets.ndim == 1:
        data = read_splits(given, check=partial(_checked, column=True))
    task = RegressionTask(data, given.recipe, measure=of_numbers(given.measure) or SquaredError(), device=given.device)
    return task.tried(given.model)


def _checked(batch: Batch, where: str, *, column: bool) -> Batch:
    """Targets as floating numbers, all finite; single ones in a column where that is asked for."""
    targets: Any = batch.targets
    if not isinstance(targets, Tensor) or not targets.ndim or len(targets) != len(batch) or targets.is_complex():
        told = f"targets of shape {tuple(targets.shape)}" if isinstance(targets, Tensor) else type(targets).__name__
        raise DataError(f"{where}: {told}; the task regression needs real numbers for each example, (N, …)")
    numbers = targets.to(torch.float32)
    wrong = ~numbers.reshape(len(batch), -1).isfinite().all(1)
    if wrong.any():
        raise DataError(
            f"{where}, row {int(wrong.nonzero()[0])}: a target is NaN or infinite, as 32-bit numbers have it; correct "
            f"or scale the targets, or leave such examples out"
        )
    return Batch(batch.inputs, numbers[:, None] if column and numbers.ndim == 1 else numbers)
