"""Training a network by a recipe, and the accuracy of a classifier."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from autoprune.config.training import Recipe
from autoprune.data.base import Split
from autoprune.errors import EvaluationError
from autoprune.randomness import seeded
from autoprune.training.integrity import check_finite
from autoprune.training.objectives.base import Objective
from autoprune.training.scores import LOWER, class_outputs, scored_copy
from autoprune.training.terms.base import Term
from autoprune.training.trainer import EpochRecord, Trainer, placed
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

    Raises:
        EvaluationError: the loss is no longer a finite number, or the network holds values that are none.
        Stopped: the watch ends the training.
    """
    with seeded(seed):
        trainer = Trainer(model, recipe, device=device, seed=seed, teacher=teacher, objective=objective, terms=terms)
        scored = None if score is None else lambda: trainer.averaged(score)
        earlier = None if watch is None else watch.restore()
        records = [] if earlier is None else trainer.restore(earlier)
        for epoch in range(len(records) + 1, recipe.epochs + 1):
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


def accuracy(
    model: nn.Module, split: Split, *, device: torch.device, batch_size: int = 512, limit: int | None = None
) -> float:
    """Share of examples whose highest output is the right class, in percent (0 to 100); see `right_answers`."""
    right = right_answers(model, split, device=device, batch_size=batch_size, limit=limit)
    return 100.0 * int(right.sum()) / len(right)


def right_answers(
    model: nn.Module, split: Split, *, device: torch.device, batch_size: int = 512, limit: int | None = None
) -> Tensor:
    """Return (N,), for each example whether the highest output is the right class; on the CPU.

    A copy of the model runs, in eval mode on `device`: what `forward` itself writes down is not kept.

    Args:
        model: maps (N, *input_shape) to (N, classes).
        split: examples with class numbers.
        device: where.
        batch_size: examples per forward pass.
        limit: only the first `limit` examples.

    Raises:
        EvaluationError: weights or outputs that are no usable numbers, or outputs that are not of shape (N, classes).
    """
    network = scored_copy(model, device)
    right: list[Tensor] = []
    sound: list[Tensor] = []
    with seeded(0), torch.no_grad():
        for inputs, targets in split.batches(batch_size, limit=limit):
            outputs = class_outputs(network(inputs.to(device)), targets)
            best = outputs.max(1)
            sound.append(best.values.isfinite())  # NaN is the highest; classes may be masked by minus infinity
            right.append(best.indices == targets.to(device))
    finite = torch.cat(sound)
    broken = (~finite).nonzero()  # looked at once: a GPU is not waited for after each batch
    if len(broken):
        raise EvaluationError(
            f"the network's outputs are NaN or infinite for {len(broken)} of {len(finite)} examples, first for example "
            f"{int(broken[0])} as read; its weights and these inputs are finite: its forward overflows or divides by 0"
        )
    return torch.cat(right).cpu()
