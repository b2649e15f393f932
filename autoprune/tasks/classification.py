"""Labelled examples, one class each."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, final

import torch
from torch import Tensor, nn

from autoprune.config.training import Recipe
from autoprune.data.base import DataSplits, digest
from autoprune.data.labelled import labelled
from autoprune.data.of_classes import OfClasses
from autoprune.errors import ConfigError
from autoprune.measures.accuracy import Accuracy
from autoprune.measures.base import Measure
from autoprune.tasks.base import TaskInputs
from autoprune.tasks.outputs import FIRST, check_outputs
from autoprune.tasks.trained import RecipeTask, check_transforms


@final
class ClassificationTask(RecipeTask):
    """Trained by cross entropy on labelled examples, scored by a measure.

    Args:
        data: the splits.
        recipe: how networks are trained; a training of another length stretches it.
        device: where.
        classes: how many the networks tell apart; None: as many as the data say, if they do.
        measure: what scores count; None: top-1 accuracy in percent.
    """

    def __init__(
        self,
        data: DataSplits,
        recipe: Recipe,
        *,
        device: torch.device,
        classes: int | None = None,
        measure: Measure | None = None,
    ) -> None:
        check_transforms(recipe, data.train, data.name)
        checked = labelled(data, data.classes if classes is None else classes)
        super().__init__(checked, recipe, measure=measure or Accuracy(), device=device)

    def example_input(self) -> Tensor:
        """See `Task.example_input`; random, as its values do not matter, and always the same."""
        return torch.randn(1, *self._data.input_shape, generator=torch.Generator().manual_seed(0))

    def of_classes(self, classes: Sequence[int]) -> ClassificationTask:
        """This task among the examples of some classes; its networks are `ClassOutputs` of these.

        Where its measure compares with a base network, it is to be told of one anew: `compared_with`.

        Args:
            classes: their numbers, at least two.

        Raises:
            DataError: on reading, a split has no example of them.
        """
        data, part = self._data, copy.copy(self)
        train, validation = OfClasses(data.train, classes, "train"), OfClasses(data.validation, classes, "validation")
        test = None if data.test is None else OfClasses(data.test, classes, "test")
        part._data = replace(data, train=train, validation=validation, test=test, classes=len(classes))
        part._measure, part._base = self._measure.settled(torch.zeros(FIRST, len(classes))), None
        return part

    @property
    def distils(self) -> bool:
        """Unless the recipe names an objective: it has been measured (docs/results/recovery.md)."""
        return self._recipe.objective == self.usual_objective

    @property
    def fingerprint(self) -> str:
        """Of the data and the recipe, and of a measure other than accuracy."""
        other = () if isinstance(self._measure, Accuracy) else (repr(self.scale),)
        return digest(self._data.fingerprint, repr(self._recipe), *other)


@final
class ClassOutputs(nn.Module):
    """A network that tells some of its classes apart: the columns of its outputs that are theirs.

    Args:
        network: of outputs (N, all classes); not copied.
        classes: numbers of columns.
    """

    def __init__(self, network: nn.Module, classes: Sequence[int]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("classes", torch.tensor(classes), persistent=False)

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        """(N, classes) of what the network gives."""
        columns: Tensor = self.network(*inputs, **named).index_select(1, self.classes)
        return columns


def classification(given: TaskInputs) -> ClassificationTask:
    """The task of a job; the network is tried on the first examples of each split."""
    if given.data is None:
        raise ConfigError(
            'search needs something to score with: data="cifar10", your data sets as '
            "data={'train': …, 'validation': …}, or score_func(model) -> float"
        )
    data = given.splits()
    classes = check_outputs(given.model, data)
    measure = None if given.measure is None else given.measure.settled(torch.zeros(FIRST, classes))
    return ClassificationTask(data, given.recipe, device=given.device, classes=classes, measure=measure)
