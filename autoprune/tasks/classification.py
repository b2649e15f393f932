"""Labelled examples, one class each."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import islice
from typing import Any, Self, final

import torch
from torch import Tensor, nn

from autoprune.config.parts import NamedPart
from autoprune.config.training import Recipe
from autoprune.data.base import DataSplits, Split, digest
from autoprune.data.batch import Batch
from autoprune.data.labelled import labelled
from autoprune.data.shortened import Shortened
from autoprune.errors import ConfigError
from autoprune.measures.accuracy import Accuracy
from autoprune.measures.base import Measure
from autoprune.tasks.base import SplitName, TaskInputs
from autoprune.tasks.measured import MeasuredTask
from autoprune.tasks.outputs import FIRST, check_outputs
from autoprune.tasks.scoring import BATCH
from autoprune.training.cuts import TrainingCuts
from autoprune.training.loop import EpochProgress, train
from autoprune.training.objectives.base import LossOfOutputs, make_objective
from autoprune.training.watch import Watch


@final
class ClassificationTask(MeasuredTask):
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
        super().__init__(measure or Accuracy(), device=device)
        if recipe.rand_augment is not None and not data.train.transforms:
            raise ConfigError(
                f"training: rand_augment changes images in bytes, as the data sets by name have them, and these data "
                f"({data.name}) come ready made; put torchvision's RandAugment into the data set, and leave it out here"
            )
        self._data, self._recipe = labelled(data, data.classes if classes is None else classes), recipe

    def train(
        self,
        model: nn.Module,
        *,
        epochs: int,
        seed: int,
        lr: float | None = None,
        progress: EpochProgress | None = None,
        watch: Watch | None = None,
        score: Callable[[], float] | None = None,
        teacher: nn.Module | None = None,
        cuts: TrainingCuts | None = None,
    ) -> None:
        """See `Task.train`; `teacher` is the base network, for recipes whose objective needs it."""
        recipe = self._recipe.over(epochs, lr=lr)
        split, device = self._data.train, self.device
        train(
            model,
            split,
            recipe,
            seed=seed,
            device=device,
            progress=progress,
            watch=watch,
            score=score,
            teacher=teacher,
            cuts=cuts,
        )

    def shortened(self, examples: int) -> Self:
        """See `Task.shortened`."""
        shorter = copy.copy(self)
        shorter._data = replace(self._data, train=Shortened(self._data.train, examples))
        return shorter

    def distilled(self) -> Self:
        """See `Task.distilled`; by `distillation` with its own settings, unless the recipe has a teacher already."""
        if self.needs_teacher:
            return self
        taught = copy.copy(self)
        taught._recipe = self._recipe.model_copy(update={"objective": NamedPart(name="distillation")})
        return taught

    def scored_batches(self, split: SplitName, limit: int | None) -> Iterable[Batch]:
        """See `MeasuredTask.scored_batches`; of accuracy, examples are right or wrong."""
        read = self._examples(split).batches(BATCH, limit=limit)
        return (Batch(inputs, labels) for inputs, labels in read)

    def _examples(self, split: SplitName) -> Split:
        return self._data.test if split == "test" and self._data.test is not None else self._data.validation

    def calibration_batches(self, batches: int, *, seed: int) -> list[Batch]:
        """See `Task.calibration_batches`; not augmented, as scores are taken on images that are not."""
        drawn = self._data.train.batches(self._recipe.batch_size, seed=seed)
        return [Batch(inputs, labels).to(self.device) for inputs, labels in islice(drawn, batches)]

    def example_input(self) -> Tensor:
        """See `Task.example_input`; random, as its values do not matter, and always the same."""
        return torch.randn(1, *self._data.input_shape, generator=torch.Generator().manual_seed(0))

    @property
    def objective(self) -> Callable[[Any, Any], Tensor]:
        """That of the recipe."""
        return LossOfOutputs(make_objective(self._recipe), self._recipe.objective.label)

    @property
    def recipe(self) -> Recipe:
        """That of the job."""
        return self._recipe

    @property
    def needs_teacher(self) -> bool:
        """Whether the recipe's objective does."""
        return make_objective(self._recipe).needs_teacher

    @property
    def cuts_in_training(self) -> bool:
        """Always."""
        return True

    @property
    def trains(self) -> bool:
        """Always."""
        return True

    @property
    def has_test(self) -> bool:
        """Whether the data have a test split."""
        return self._data.test is not None

    @property
    def test_examples(self) -> int | None:
        """The size of the test split, or of validation where there is none."""
        return len(self._data.validation if self._data.test is None else self._data.test)

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
