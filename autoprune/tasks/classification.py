"""Top-1 accuracy on labelled examples."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoprune.config.training import Recipe
from autoprune.data.base import DataSplits, Split, digest
from autoprune.data.labelled import labelled
from autoprune.tasks.base import SplitName, Task
from autoprune.tasks.score import Score, binomial_error
from autoprune.training.loop import EpochProgress, accuracy, right_answers, train
from autoprune.training.objectives.base import make_objective
from autoprune.training.scores import checked_score
from autoprune.training.watch import Watch


@final
class ClassificationTask(Task):
    """Top-1 accuracy on labelled examples, in percent.

    Args:
        data: the splits.
        recipe: how networks are trained; a training of another length stretches it.
        device: where.
        classes: how many the networks tell apart; None: as many as the data say, if they do.
    """

    def __init__(self, data: DataSplits, recipe: Recipe, *, device: torch.device, classes: int | None = None) -> None:
        super().__init__(device)
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
        )

    def score(self, model: nn.Module, *, split: SplitName = "validation", limit: int | None = None) -> float:
        """See `Task.score`."""
        score = accuracy(model, self._examples(split), device=self.device, limit=limit)
        return checked_score(score, self.score_range, what="accuracy")

    def noise(self, score: float, *, split: SplitName = "validation") -> float | None:
        """See `binomial_error`."""
        n = len(self._examples(split))
        return 100 * binomial_error(score / 100 * n, n)

    def scored(
        self, model: nn.Module, *, split: SplitName = "validation", limit: int | None = None, examples: bool = False
    ) -> Score:
        """See `Task.scored`; examples are right or wrong."""
        right = right_answers(model, self._examples(split), device=self.device, limit=limit).numpy()
        count = int(right.sum())
        error = 100 * binomial_error(count, len(right))
        return Score(100.0 * count / len(right), error, examples=right if examples else None)

    def _examples(self, split: SplitName) -> Split:
        return self._data.test if split == "test" and self._data.test is not None else self._data.validation

    def calibration_inputs(self, batches: int, *, seed: int) -> list[Tensor]:
        """See `Task.calibration_inputs`; not augmented, as scores are taken on images that are not."""
        drawn = self._data.train.batches(self._recipe.batch_size, seed=seed)
        return [inputs.to(self.device) for inputs, _ in islice(drawn, batches)]

    def calibration_examples(self, batches: int, *, seed: int) -> list[tuple[Tensor, Tensor]]:
        """See `Task.calibration_examples`; the batches of `calibration_inputs`."""
        drawn = self._data.train.batches(self._recipe.batch_size, seed=seed)
        return [(inputs.to(self.device), labels.to(self.device)) for inputs, labels in islice(drawn, batches)]

    @property
    def objective(self) -> Callable[[Any, Any], Tensor]:
        """Cross entropy."""
        return F.cross_entropy

    @property
    def recipe(self) -> Recipe:
        """That of the job."""
        return self._recipe

    @property
    def needs_teacher(self) -> bool:
        """Whether the recipe's objective does."""
        return make_objective(self._recipe).needs_teacher

    @property
    def trains(self) -> bool:
        """Always."""
        return True

    @property
    def unit(self) -> str:
        """Percent."""
        return "%"

    @property
    def score_range(self) -> tuple[float, float]:
        """Of percent."""
        return 0.0, 100.0

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
        """Of the data and the recipe."""
        return digest(self._data.fingerprint, repr(self._recipe))
