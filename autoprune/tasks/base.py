"""What networks are trained for and scored by."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from autoprune.config.training import Recipe
from autoprune.tasks.score import Score
from autoprune.training.loop import EpochProgress
from autoprune.training.scores import ANY
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
        progress: EpochProgress | None = None,
        watch: Watch | None = None,
        score: Callable[[], float] | None = None,
    ) -> None:
        """Train `model` in place; it is left on the device in eval mode.

        Args:
            model: the network.
            epochs: passes over the training data, at least 1.
            seed: of all randomness.
            lr: another learning rate than the task's own.
            progress: see `EpochProgress`.
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

    def scored(
        self, model: nn.Module, *, split: SplitName = "validation", limit: int | None = None, examples: bool = False
    ) -> Score:
        """As `score`, with its standard error where it is known.

        Args:
            model: see `score`.
            split: see `score`.
            limit: see `score`.
            examples: also keep the values of single examples, where the task has some.
        """
        value = self.score(model, split=split, limit=limit)
        return Score(value, self.noise(value, split=split) if limit is None else None)

    @abstractmethod
    def calibration_inputs(self, batches: int, *, seed: int) -> list[Tensor]:
        """Return up to `batches` batches of training inputs on the device; none where there are no data."""

    def calibration_examples(self, batches: int, *, seed: int) -> list[tuple[Any, Any]]:
        """Return `calibration_inputs` with their targets, None where there are none."""
        return [(inputs, None) for inputs in self.calibration_inputs(batches, seed=seed)]

    @property
    def objective(self) -> Callable[[Any, Any], Tensor] | None:
        """(outputs, targets) -> loss, the mean over examples; None where the task has none that can be called."""
        return None

    def noise(self, score: float, *, split: SplitName = "validation") -> float | None:
        """Standard error of a score: how far it may be off because examples are few. None if unknown."""
        return None

    @property
    def recipe(self) -> Recipe | None:
        """How `train` trains, where a recipe says so; None where the task trains in a way of its own, or not at all."""
        return None

    @property
    def needs_teacher(self) -> bool:
        """Whether `train` wants the keyword `teacher`: the base network, to be only read."""
        return False

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
