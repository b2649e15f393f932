"""Texts with one class each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from autoprune.config.parts import NamedPart
from autoprune.data.batch import Batch
from autoprune.errors import DataError
from autoprune.measures.accuracy import Accuracy
from autoprune.measures.of_logits import OfLogits
from autoprune.tasks.base import TaskInputs
from autoprune.tasks.trained import RecipeTask, read_splits


@final
class SequenceClassificationTask(RecipeTask):
    """Trained by cross entropy on texts of one class each, scored by accuracy or another measure of the logits."""

    usual_objective = NamedPart(name="token_cross_entropy")


def sequence_classification(given: TaskInputs) -> SequenceClassificationTask:
    """The task of a job; the network is tried on the first texts of each split.

    Data are splits or data sets of mappings, such as `input_ids`, `attention_mask` and `labels`, or of pairs
    (inputs, class number); the texts of a batch have one length, padded where they are shorter. `labels` are not given
    to the network.

    Args:
        given: what it is made from.

    Raises:
        ConfigError: a network that does not run on the data, or gives no row of logits for each text.
        DataError: data without one class number for each text.
    """
    data = read_splits(given, check=_one_class_each)
    measure = OfLogits(given.measure or Accuracy())
    return SequenceClassificationTask(data, given.recipe, measure=measure, device=given.device).tried(given.model)


def _one_class_each(batch: Batch, where: str) -> Batch:
    """The batch, its targets (N,) int64; raises DataError where they are something else."""
    targets, inputs = batch.targets, batch.inputs
    found = f"of shape {tuple(targets.shape)}" if isinstance(targets, Tensor) else type(targets).__name__
    if not isinstance(targets, Tensor) or targets.shape != (len(batch),) or targets.is_floating_point():
        raise DataError(
            f"{where}: targets {found} for {len(batch)} texts; give one class number each, as `labels` or beside the "
            f"inputs"
        )
    if bool((targets < 0).any()):
        raise DataError(f"{where}: class number {int(targets.min())}; number the classes from 0")
    if isinstance(inputs, Mapping):
        inputs = {name: value for name, value in inputs.items() if isinstance(value, Tensor)}
    if not any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(inputs)):
        raise DataError(f"{where}: the inputs hold no tensor; tokenize the texts first")
    return Batch(inputs, targets.to(torch.int64))
