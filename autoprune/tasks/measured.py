"""What tasks have in common that hold their data and let a measure score them."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Iterable
from typing import Self

import torch
from torch import nn

from autoprune.data.batch import Batch
from autoprune.measures.base import Measure
from autoprune.tasks.base import SplitName, Task
from autoprune.tasks.score import Score
from autoprune.tasks.scoring import BaseOutputs, scored_by
from autoprune.texts import ScoreScale


class MeasuredTask(Task):
    """A task whose scores are those of a measure, on batches of its own.

    Args:
        measure: what counts.
        device: where.
    """

    def __init__(self, measure: Measure, *, device: torch.device) -> None:
        super().__init__(device)
        self._measure = measure
        self._base: BaseOutputs | None = None

    @abstractmethod
    def scored_batches(self, split: SplitName, limit: int | None) -> Iterable[Batch]:
        """The examples of a split in their order; those of validation where there is no test.

        Args:
            split: which.
            limit: only so many of the first.
        """

    def scored(
        self, model: nn.Module, *, split: SplitName = "validation", limit: int | None = None, examples: bool = False
    ) -> Score:
        """See `Task.scored`."""
        batches = self.scored_batches(split, limit)
        return scored_by(
            self._measure, model, batches, split=split, device=self.device, base=self._base, examples=examples
        )

    def compared_with(self, base: nn.Module) -> Self:
        """See `Task.compared_with`."""
        if not self._measure.needs_base or (self._base is not None and self._base.model is base):
            return self
        bound = copy.copy(self)
        bound._base = BaseOutputs(base)
        return bound

    @property
    def feeds(self) -> bool:
        """Always."""
        return True

    @property
    def scale(self) -> ScoreScale:
        """The measure's."""
        return self._measure.scale

    @property
    def score_range(self) -> tuple[float, float]:
        """The measure's."""
        return self._measure.score_range
