"""Training a network by a recipe."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from autoprune.config.training import Recipe
from autoprune.data.base import Split
from autoprune.data.batch import Batch, as_batch
from autoprune.errors import DataError, EvaluationError
from autoprune.randomness import seeded, untouched
from autoprune.space.copying import copy_network
from autoprune.training.cuts import TrainingCuts
from autoprune.training.epochs import EpochRecord
from autoprune.training.freezing import flags_kept
from autoprune.training.integrity import check_finite
from autoprune.training.layout import Layout, fastest
from autoprune.training.objectives.base import Objective
from autoprune.training.placing import placed
from autoprune.training.scores import LOWER
from autoprune.training.terms.base import Term
from autoprune.training.trainer import Trainer
from autoprune.training.watch import State, Watch

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
    given: dict[str, Any] = {"device": device, "seed": seed, "teacher": teacher, "objective": objective, "terms": terms}
    with seeded(seed), flags_kept(model):
        earlier = None if watch is None else watch.restore()
        layout = _layout(model, split, recipe, given, earlier)
        label = "" if cuts is None else cuts.label
        trainer = Trainer(model, recipe, examples=len(split), cuts=label, layout=layout, **given)
        if trainer.needs_batch:
            trainer.begin(first_batch(split, recipe.batch_size, seed=seed))
        scored = None if score is None else lambda: trainer.averaged(score)
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


def _layout(
    model: nn.Module, split: Split, recipe: Recipe, given: Mapping[str, Any], earlier: State | None
) -> Layout | None:
    """Memory format and precision where the recipe leaves them open: those of an earlier attempt, else the fastest."""
    if "auto" not in (recipe.channels_last, recipe.amp):
        return None
    if earlier is not None and "layout" in earlier:
        return Layout(*earlier["layout"])
    batch, device = first_batch(split, recipe.batch_size, seed=given["seed"]), given["device"]
    inputs = [tuple(leaf.shape) for leaf in pytree.tree_leaves(batch.inputs) if isinstance(leaf, Tensor)]
    shapes = [tuple(parameter.shape) for parameter in model.parameters()]

    def step(layout: Layout) -> Callable[[], Any]:
        own = {**given, "objective": copy.deepcopy(given["objective"]), "terms": copy.deepcopy(given["terms"])}
        trainer = Trainer(copy_network(model), recipe, layout=layout, **own)
        if trainer.needs_batch:
            trainer.begin(batch)
        return lambda: trainer.step([batch], len(batch), done=0.5)

    with untouched():
        return fastest(recipe, device, f"{recipe} {type(model)} {shapes} {inputs} {device}", step)


def first_batch(split: Split, batch_size: int, *, seed: int) -> Batch:
    """The first batch of training examples in the order of a seed, not augmented.

    Raises:
        DataError: there is none.
    """
    drawn = next(iter(split.batches(batch_size, seed=seed)), None)
    if drawn is None:
        raise DataError("the training examples give no batch; correct the data set")
    return as_batch(drawn)
