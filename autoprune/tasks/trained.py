"""What tasks have in common that train by a recipe on labelled examples and score by a measure.

Longer than others, as it is one class, whose trainings, scores and tries are of one set of splits.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, Self

import torch
from torch import Tensor, nn

from autoprune.config.parts import NamedPart
from autoprune.config.training import Recipe
from autoprune.data import parts_from
from autoprune.data.base import DataSplits, Split, digest
from autoprune.data.batch import Batch, as_batch
from autoprune.data.collated import Check, Collate, Drawn, collated_splits, stacked
from autoprune.data.shortened import Shortened
from autoprune.errors import ConfigError, EvaluationError, blame
from autoprune.measures.base import Measure
from autoprune.randomness import seeded
from autoprune.space.copying import copy_network
from autoprune.tasks.base import SplitName, TaskInputs
from autoprune.tasks.identity import plain_values
from autoprune.tasks.measured import MeasuredTask
from autoprune.tasks.outputs import FIRST, outputs_for
from autoprune.tasks.scoring import BATCH
from autoprune.training.cuts import TrainingCuts
from autoprune.training.integrity import check_finite
from autoprune.training.loop import EpochProgress, train
from autoprune.training.objectives.base import LossOfOutputs, Objective, make_objective
from autoprune.training.terms.base import Term
from autoprune.training.watch import Watch

USUAL = NamedPart(name="cross_entropy")
"""The objective of a recipe that names none; it stands for that of the task."""

_ROLES = ("train", "validation", "test")


class RecipeTask(MeasuredTask):
    """A task whose networks are trained by a recipe, on splits that yield `Batch`es or pairs of tensors.

    A subclass says what is trained for where the recipe does not (`usual_objective`, `usual_teaching`); what its data
    and its measure are, its factory says, which ends with `return task.tried(given.model)`.

    Args:
        data: the splits, checked as they are read.
        recipe: how networks are trained; a training of another length stretches it.
        measure: what scores count.
        device: where.

    Attributes:
        usual_objective: takes the place of an objective `cross_entropy` without settings in the recipe.
        usual_teaching: objective of trainings that are to learn from the base network, where the recipe has none; None:
            `distillation`, with `usual_objective` as the loss on the targets.
        scored_together: examples per forward pass where scores are taken.
    """

    usual_objective: NamedPart = USUAL
    usual_teaching: NamedPart | None = None
    scored_together: int = BATCH

    def __init__(self, data: DataSplits, recipe: Recipe, *, measure: Measure, device: torch.device) -> None:
        super().__init__(measure, device=device)
        self._data = data
        if recipe.objective == USUAL and self.usual_objective != USUAL:
            recipe = recipe.model_copy(update={"objective": self.usual_objective})
        self._recipe = recipe

    def new_objective(self) -> Objective:
        """The loss of one training, made anew; by default that of the recipe."""
        return make_objective(self._recipe)

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
        recipe: Recipe | None = None,
        terms: Sequence[Term] | None = None,
        objective: Objective | None = None,
    ) -> None:
        """See `Task.train`; `teacher` is the base network, for recipes whose objective needs it."""
        train(
            model,
            self._data.train,
            (self._recipe if recipe is None else recipe).over(epochs, lr=lr),
            seed=seed,
            device=self.device,
            progress=progress,
            watch=watch,
            score=score,
            teacher=teacher,
            objective=self.new_objective() if objective is None else objective,
            terms=terms,
            cuts=cuts,
        )

    def shortened(self, examples: int) -> Self:
        """See `Task.shortened`."""
        shorter = copy.copy(self)
        shorter._data = replace(self._data, train=Shortened(self._data.train, examples))
        return shorter

    def distilled(self) -> Self | None:
        """See `Task.distilled`; by `usual_teaching`, unless the recipe has a teacher already."""
        if self.needs_teacher:
            return self
        usual = self.usual_teaching
        if usual is None:
            hard = {} if self.usual_objective == USUAL else {"hard": self.usual_objective.model_dump()}
            usual = NamedPart(name="distillation", settings=hard)
        taught = copy.copy(self)
        taught._recipe = self._recipe.model_copy(update={"objective": usual})
        return taught

    def scored_batches(self, split: SplitName, limit: int | None) -> Iterable[Batch]:
        """See `MeasuredTask.scored_batches`."""
        return map(as_batch, self._examples(split).batches(self.scored_together, limit=limit))

    def calibration_batches(self, batches: int, *, seed: int) -> list[Batch]:
        """See `Task.calibration_batches`; not augmented, as scores are taken on examples that are not."""
        drawn = self._data.train.batches(self._recipe.batch_size, seed=seed)
        return [as_batch(one).to(self.device) for one in islice(drawn, batches)]

    def tried(self, model: nn.Module) -> Self:
        """This task, once a copy of the network ran on the first examples of each split, and measure and loss on that.

        A measure that settles by what networks return is settled.

        Args:
            model: the full network; only read.

        Raises:
            ConfigError: the network does not run on the data, or returns what measure or loss cannot take.
            DataError: examples cannot be read, or are not as the task needs them.
        """
        check_finite(model)
        network, settled = copy_network(model).eval(), self
        for role in _ROLES:
            split: Split | None = getattr(self._data, role)
            if split is None:
                continue
            batch = as_batch(next(split.batches(FIRST, limit=FIRST)))
            outputs = outputs_for(network, batch)
            if settled is self:
                settled = copy.copy(self)
                settled._measure = self._measure.settled(outputs)
            settled._try(network, outputs, batch, role)
        return settled

    def _try(self, network: nn.Module, outputs: Any, batch: Batch, role: str) -> None:
        """Measure and loss of some outputs; raises ConfigError where they do not fit."""
        failing = f"the model's outputs for the first examples of {role} do not fit the task"
        try:
            with blame(EvaluationError, failing):
                values = self._measure.values(outputs, batch, outputs if self._measure.needs_base else None)
                if values.shape[:1] != (len(batch),):
                    raise EvaluationError(f"{failing}: {len(values)} values for {len(batch)} examples")
                if not bool(self._measure.sound(outputs, len(batch)).all()):
                    raise EvaluationError(
                        f"the model returns NaN or infinite outputs for the first examples of {role}, which are "
                        f"finite: load other weights, or correct its forward and what its buffers hold"
                    )
                if (loss := self.objective) is not None and role == "train" and not self.needs_teacher:
                    with seeded(0):
                        loss(outputs, batch.targets)
        except EvaluationError as error:
            raise ConfigError(str(error)) from error

    def _examples(self, split: SplitName) -> Split:
        return self._data.test if split == "test" and self._data.test is not None else self._data.validation

    @property
    def objective(self) -> Callable[[Any, Any], Tensor] | None:
        """That of the recipe, or of the task."""
        return LossOfOutputs(self.new_objective(), self._recipe.objective.label)

    @property
    def recipe(self) -> Recipe:
        """That of the job, with the objective of the task where it names none."""
        return self._recipe

    @property
    def needs_teacher(self) -> bool:
        """Whether the objective does."""
        return self.new_objective().needs_teacher

    @property
    def cuts_in_training(self) -> bool:
        """Always."""
        return True

    @property
    def takes_terms(self) -> bool:
        """Always."""
        return True

    @property
    def training_examples(self) -> int:
        """See `Task.training_examples`."""
        return len(self._data.train)

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
        """Of the data, the recipe and the measure."""
        return digest(type(self).__name__, self._data.fingerprint, repr(self._recipe), *self.identity)

    @property
    def identity(self) -> tuple[str, ...]:
        """What else scores depend on: the measure, and settings of the task."""
        return repr(self.scale), repr(plain_values(vars(self._measure)))


def read_splits(
    given: TaskInputs, *, check: Check, collate: Collate = stacked, drawn: Drawn | None = None
) -> DataSplits:
    """The data of a job as splits of a task.

    Args:
        given: what the task is made from.
        check: what the task asks of a batch.
        collate: makes a batch of examples; by default pairs (input, target) of any nesting are stacked.
        drawn: of batches of loaders, see `Collated`.

    Raises:
        ConfigError: there are no data, or RandAugment for data that are no images in bytes.
        DataError: they are not as the task needs them.
    """
    if given.data is None:
        raise ConfigError(
            "search needs something to score with: data=…, your data sets as data={'train': …, 'validation': …}, or "
            "score_func(model) -> float"
        )
    parts, name = parts_from(given.data)
    check_transforms(given.recipe, parts["train"], name or given.data_name)
    return collated_splits(parts, name=name or given.data_name, collate=collate, check=check, drawn=drawn)


def check_transforms(recipe: Recipe, train: Any, name: str) -> None:
    """Check that RandAugment finds images in bytes; raises ConfigError where it does not."""
    if recipe.rand_augment is not None and not getattr(train, "transforms", False):
        raise ConfigError(
            f"training: rand_augment changes images in bytes, as the data sets by name have them, and these data "
            f"({name}) come ready made; put torchvision's RandAugment into the data set, and leave it out here"
        )
