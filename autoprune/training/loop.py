"""Training a network by a recipe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import nn

from autoprune.config.training import Recipe
from autoprune.data.base import Split
from autoprune.data.batch import Batch
from autoprune.errors import DataError, EvaluationError
from autoprune.randomness import seeded
from autoprune.training.cuts import TrainingCuts
from autoprune.training.integrity import check_finite
from autoprune.training.objectives.base import Objective
from autoprune.training.placing import placed
from autoprune.training.scores import LOWER
from autoprune.training.terms.base import Term
from autoprune.training.trainer import EpochRecord, Trainer
from autoprune.training.watch import Watch

EpochProgress: TypeAlias = Callable[[int, int, float], None]
"""Called after every epoch with (epochs done, epochs in all, mean loss of the epoch)."""


def train(
    model: nn.Module,
    split: Split,
    recipe: Recipe,
    *,
    seed: int,
    device: torch.device,
    progress: EpochProgress | None = None,
    watch: Watch | None = None,
    score: Callable[[], float] | None = None,
    teacher: nn.Module | None = None,
    objective: Objective | None = None,
    terms: Sequence[Term] | None = None,
    cuts: TrainingCuts | None = None,
) -> list[EpochRecord]:
    """Train `model` in place; it is left on `device` in eval mode. The global random state stays as it was.

    Where `watch` restores an earlier attempt, the training goes on bitwise as if it had not been interrupted; what a
    module keeps outside its parameters and persistent buffers is not part of that.

    Args:
        model: what the objective takes.
        split: training examples.
        recipe: how.
        seed: of the order, the augmentation and whatever the model draws (dropout).
        device: where.
        progress: see `EpochProgress`.
        watch: see `Watch`.
        score: of the model as it is, for the watch; where the recipe averages weights, of the average.
        teacher: the base network, for objectives that need it; only read.
        objective: in place of the recipe's.
        terms: in place of the recipe's.
        cuts: what is cut while it trains.

    Raises:
        EvaluationError: the loss is no longer a finite number, or the network holds values that are none.
        Stopped: the watch ends the training.
    """
    with seeded(seed):
        trainer = Trainer(
            model,
            recipe,
            device=device,
            seed=seed,
            teacher=teacher,
            examples=len(split),
            objective=objective,
            terms=terms,
            cuts="" if cuts is None else cuts.label,
        )
        if trainer.needs_batch:
            trainer.begin(first_batch(split, recipe.batch_size, seed=seed))
        scored = None if score is None else lambda: trainer.averaged(score)
        earlier = None if watch is None else watch.restore()
        records = [] if earlier is None else trainer.restore(earlier, cuts)
        for epoch in range(len(records) + 1, recipe.epochs + 1):
            for number, done in enumerate(() if cuts is None else cuts.epochs):
                if cuts is not None and done == epoch - 1:
                    trainer.cut(cuts.make(model, number, True))
            record = trainer.run_epoch(split, epoch, seed=(seed * recipe.epochs + epoch) % 2**63)
            records.append(record)
            if progress is not None:
                progress(epoch, recipe.epochs, record.loss)
            if watch is not None:
                watch.epoch(epoch, recipe.epochs, scored, lambda: trainer.state(records))
        trainer.finish()
    placed(model, device, torch.contiguous_format).eval()  # weight files want plain memory
    check_finite(model, what="training: the trained network", kind=EvaluationError, then=LOWER)
    return records


def first_batch(split: Split, batch_size: int, *, seed: int) -> Batch:
    """The first batch of training examples in the order of a seed, not augmented.

    Raises:
        DataError: there is none.
    """
    drawn = next(iter(split.batches(batch_size, seed=seed)), None)
    if drawn is None:
        raise DataError("the training examples give no batch; correct the data set")
    return drawn if isinstance(drawn, Batch) else Batch(*drawn)
