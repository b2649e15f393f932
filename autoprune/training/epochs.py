"""An epoch: the steps that it is made of, and what is written down of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

from autoprune.config.training import Recipe
from autoprune.data.base import Split
from autoprune.data.batch import Batch, as_batch
from autoprune.data.rand_augment import rand_augment


@final
@dataclass(frozen=True, slots=True)
class EpochRecord:
    """One epoch of training.

    Attributes:
        epoch: from 1.
        loss: mean of the objective.
        lr: learning rate of the last step.
        seconds: wall-clock time.
    """

    epoch: int
    loss: float
    lr: float
    seconds: float


def steps(split: Split, recipe: Recipe, *, seed: int) -> Iterator[tuple[list[Batch], int]]:
    """The batches of each step, and how many examples they hold.

    Args:
        split: the examples.
        recipe: how they are read.
        seed: of order and augmentation.
    """
    gathered: list[Batch] = []
    examples = first = 0
    options = recipe.rand_augment
    augment = recipe.augment if options is None else rand_augment(options, own=recipe.augment)
    for drawn in split.batches(recipe.batch_size, seed=seed, augment=augment):
        batch = as_batch(drawn)
        size = len(batch)
        if size == 1 < first:
            continue  # a leftover of one example has no batch statistics
        first = first or size
        gathered.append(batch)
        examples += size
        if len(gathered) == recipe.accumulate_batches:
            yield gathered, examples
            gathered, examples = [], 0
    if gathered:
        yield gathered, examples
