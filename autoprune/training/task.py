"""What networks are trained for and scored by; here the interface, and classification on a data set."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import islice
from typing import Literal, TypeAlias, final

import torch
from torch import Tensor, nn

from autoprune.data.base import DataSplits, Split, digest
from autoprune.data.labelled import labelled
from autoprune.training.loop import Progress, Recipe, accuracy, train
from autoprune.training.scores import ANY, checked_score
from autoprune.training.watch import Watch

SplitName: TypeAlias = Literal["validation", "test"]


class Task(ABC):
    """What a network is for. Scoring leaves the network, and everything leaves the global random state, as it was."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @abstractmethod
    def train(
        self,
        model: nn.Module,
        *,
        epochs: int,
        seed: int,
        lr: float | None = None,
        progress: Progress | None = None,
        watch: Watch | None = None,
        score: Callable[[], float] | None = None,
    ) -> None:
        """Train `model` in place; it is left on the device in eval mode.

        Args:
            model: the network.
            epochs: passes over the training data, at least 1.
            seed: of all randomness.
            lr: another learning rate than the task's own.
            progress: see `Progress`.
            watch: see `Watch`; a task that cannot be watched trains whole.
            score: of the network as it is, for the watch.

        Raises:
            EvaluationError: the training diverged.
            ConfigError: fewer than 1 epoch, or the task cannot train.
            Stopped: the watch ends the training.
        """

    @abstractmethod
    def score(self, model: nn.Module, *, split: SplitName = "validation", limit: int | None = None) -> float:
        """Return how good the network is, higher is better; "test" means validation where there is no test.

        Args:
            model: the network; its weights and training flags are only read.
            split: what to score on.
            limit: only the first `limit` examples, where the task can choose.

        Raises:
            EvaluationError: the score is not a finite number, or one that cannot be.
            DataError: an example is not as it must be.
        """

    @abstractmethod
    def calibration_inputs(self, batches: int, *, seed: int) -> list[Tensor]:
        """Return up to `batches` batches of training inputs on the device; none where there are no data."""

    def noise(self, score: float, *, split: SplitName = "validation") -> float | None:
        """Standard error of a score: how far it may be off because examples are few. None if unknown."""
        return None

    @property
    @abstractmethod
    def trains(self) -> bool:
        """Whether `train` can be called."""

    @property
    @abstractmethod
    def unit(self) -> str:
        """What a score is counted in: "%", or "" if unknown."""

    @property
    @abstractmethod
    def has_test(self) -> bool:
        """Whether "test" is anything other than validation."""

    @property
    @abstractmethod
    def test_examples(self) -> int | None:
        """How many examples a "test" score is taken on; None if unknown."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Changes when scores would mean something else."""

    @property
    def score_range(self) -> tuple[float, float]:
        """The lowest and the highest score there can be."""
        return ANY


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
        progress: Progress | None = None,
        watch: Watch | None = None,
        score: Callable[[], float] | None = None,
    ) -> None:
        """See `Task.train`."""
        recipe = self._recipe.over(epochs, lr=lr)
        split, device = self._data.train, self.device
        train(model, split, recipe, seed=seed, device=device, progress=progress, watch=watch, score=score)

    def score(self, model: nn.Module, *, split: SplitName = "validation", limit: int | None = None) -> float:
        """See `Task.score`."""
        score = accuracy(model, self._examples(split), device=self.device, limit=limit)
        return checked_score(score, self.score_range, what="accuracy")

    def noise(self, score: float, *, split: SplitName = "validation") -> float | None:
        """Binomial, with one right and one wrong answer more than there were: never 0."""
        n = len(self._examples(split)) + 2
        right = (score / 100 * (n - 2) + 1) / n
        return 100 * math.sqrt(right * (1 - right) / n)

    def _examples(self, split: SplitName) -> Split:
        return self._data.test if split == "test" and self._data.test is not None else self._data.validation

    def calibration_inputs(self, batches: int, *, seed: int) -> list[Tensor]:
        """See `Task.calibration_inputs`; not augmented, as scores are taken on images that are not."""
        drawn = self._data.train.batches(self._recipe.batch_size, seed=seed)
        return [inputs.to(self.device) for inputs, _ in islice(drawn, batches)]

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
