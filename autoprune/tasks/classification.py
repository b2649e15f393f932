"""Labelled examples, one class each."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from autoprune.config.training import Recipe
from autoprune.data.base import DataSplits, digest
from autoprune.data.labelled import labelled
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

    @property
    def distils(self) -> bool:
        """Unless the recipe names an objective: it has been measured (docs/results/recovery.md)."""
        return self._recipe.objective == self.usual_objective

    @property
    def fingerprint(self) -> str:
        """Of the data and the recipe, and of a measure other than accuracy."""
        other = () if isinstance(self._measure, Accuracy) else (repr(self.scale),)
        return digest(self._data.fingerprint, repr(self._recipe), *other)


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
