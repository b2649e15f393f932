"""What tasks have in common that hold their data and let a measure score them."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, Self

import torch
from torch import nn

from autoprune.data.batch import Batch
from autoprune.measures.base import Measure, Values
from autoprune.tasks.base import SplitName, Task
from autoprune.tasks.score import Score
from autoprune.tasks.scoring import BaseOutputs, outputs_of, score_of, scored_by, values_of
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

    def values(
        self,
        network: nn.Module,
        batches: Iterable[Batch],
        *,
        split: SplitName = "validation",
        first: int = 0,
        run: Callable[[nn.Module, Batch], Any] = outputs_of,
    ) -> Values:
        """One value of the measure for each example of some batches, in its own sign; see `scoring.values_of`.

        Args:
            network: runs as it is, without a copy: on the device, in eval mode.
            batches: of `scored_batches`, cut into whatever pieces.
            split: whose they are.
            first: number of their first example in the split.
            run: gives the outputs of the network for a batch on the device.
        """
        measure, device, base = self._measure, self.device, self._base
        return values_of(measure, network, batches, split=split, device=device, base=base, first=first, run=run)

    def score_of(self, values: Values, *, examples: bool = False) -> Score:
        """The score that values of the measure's own sign make; with `examples` it keeps them."""
        return score_of(self._measure, values, examples=examples)

    def compared_with(self, base: nn.Module) -> Self:
        """See `Task.compared_with`."""
        if not self._measure.needs_base or (self._base is not None and self._base.model is base):
            return self
        bound = copy.copy(self)
        bound._base = BaseOutputs(base)
        return bound

    @property
    def measure(self) -> Measure:
        """What counts."""
        return self._measure

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
