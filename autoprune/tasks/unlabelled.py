"""Inputs without labels: networks are compared with the base network."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import final

import torch
from torch import nn

from autoprune.data.base import digest
from autoprune.data.batch import Batch
from autoprune.data.unlabelled import Inputs, UnlabelledSplits, unlabelled_splits
from autoprune.errors import ConfigError
from autoprune.measures.base import Measure
from autoprune.measures.divergence import Divergence
from autoprune.space.copying import copy_network
from autoprune.tasks.base import SplitName, TaskInputs
from autoprune.tasks.measured import MeasuredTask
from autoprune.tasks.outputs import FIRST, outputs_for
from autoprune.tasks.scoring import BATCH
from autoprune.training.integrity import check_finite
from autoprune.training.loop import EpochProgress
from autoprune.training.watch import Watch


@final
class UnlabelledTask(MeasuredTask):
    """Scores by a measure that needs no targets; nothing can be trained.

    Args:
        data: the inputs.
        measure: what counts.
        device: where.
        batch_size: of calibration batches.

    Raises:
        ConfigError: the measure needs targets.
    """

    def __init__(self, data: UnlabelledSplits, measure: Measure, *, device: torch.device, batch_size: int) -> None:
        super().__init__(measure, device=device)
        if measure.needs_targets:
            raise ConfigError(
                f"the measure {measure.name!r} needs targets, which the task 'unlabelled' does not read; choose one "
                f"that needs none (divergence, agreement), or the task classification with labelled data"
            )
        self._data, self._batch_size = data, batch_size

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
        """Raises ConfigError: there is nothing to train for."""
        raise ConfigError(f"this step trains networks, but {self.why_untrained}")

    def scored_batches(self, split: SplitName, limit: int | None) -> Iterable[Batch]:
        """See `MeasuredTask.scored_batches`."""
        return self._inputs(split).batches(BATCH, limit=limit)

    def calibration_batches(self, batches: int, *, seed: int) -> list[Batch]:
        """See `Task.calibration_batches`."""
        drawn = self._data.train.batches(self._batch_size, seed=seed)
        return [batch.to(self.device) for batch in islice(drawn, batches)]

    def _inputs(self, split: SplitName) -> Inputs:
        return self._data.test if split == "test" and self._data.test is not None else self._data.validation

    @property
    def trains(self) -> bool:
        """Never."""
        return False

    @property
    def why_untrained(self) -> str:
        """See `Task.why_untrained`."""
        return (
            "its data have no labels to train on: give labelled data and the task classification, or your own "
            "train_func with score_func"
        )

    @property
    def has_test(self) -> bool:
        """Whether the data have a test part."""
        return self._data.test is not None

    @property
    def test_examples(self) -> int | None:
        """The size of the test part, or of validation where there is none."""
        return len(self._inputs("test"))

    @property
    def fingerprint(self) -> str:
        """Of the data and what is measured on them."""
        return digest(self._data.fingerprint, repr(self.scale), str(self._batch_size))


def unlabelled(given: TaskInputs) -> UnlabelledTask:
    """The task of a job; targets that the data have are ignored, and the measure is divergence by default."""
    data = unlabelled_splits(given.data, name=given.data_name)
    check_finite(given.model)
    network, outputs = copy_network(given.model).eval(), None
    for part in (data.test, data.validation, data.train):
        if part is not None:
            outputs = outputs_for(network, next(part.batches(FIRST, limit=FIRST)))
    measure = (given.measure or Divergence()).settled(outputs)
    return UnlabelledTask(data, measure, device=given.device, batch_size=given.recipe.batch_size)
