"""Trainings whose networks are scored with the statistics of the weights that they end with, wherever they are made."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, final

from torch import nn

from autoprune.errors import ConfigError
from autoprune.inherit.bn_recalibration import (
    CALIBRATION_BATCHES,
    buffers_of,
    recalibrate_batch_norm,
    restore,
)
from autoprune.inherit.norm_averages import Replaced
from autoprune.space.cutting.cut import Cut
from autoprune.space.cutting.masks import gradients_masked, keep_masks
from autoprune.space.cutting.rounded import keep_bits
from autoprune.tasks.base import Task
from autoprune.training.cuts import TrainingCuts
from autoprune.training.loop import EpochProgress
from autoprune.training.watch import Watch


@final
@dataclass(frozen=True, slots=True)
class TrainedScore:
    """The score of a network after its training.

    Attributes:
        score: of the network as it is left.
        as_trained: before its running statistics were recalibrated; None where they were not, or nobody asked.
    """

    score: float
    as_trained: float | None


def train_and_score(
    task: Task,
    network: nn.Module,
    score: Callable[[nn.Module], float],
    *,
    epochs: int,
    seed: int,
    lr: float | None = None,
    progress: EpochProgress | None = None,
    watch: Watch | None = None,
    scores_epochs: bool = False,
    compare: bool = False,
    teacher: nn.Module | None = None,
    cuts: TrainingCuts | None = None,
    cut: Cut | None = None,
) -> TrainedScore:
    """Train `network` in place, recalibrate the norms that the training has moved, score it.

    The moving averages of a short training are those of weights that it has left behind (measured in
    docs/decisions.md). Statistics that the training did not move were frozen by whoever trained, and stay.

    Args:
        task: trains, and has the data to recalibrate on; without such data the statistics stay.
        network: left on the device in eval mode, as it was scored.
        score: of a network.
        epochs: passes over the training data.
        seed: of the training; recalibration sees the same data after each.
        lr: another learning rate than the task's own.
        progress: see `EpochProgress`.
        watch: see `Watch`.
        scores_epochs: the watch may ask for scores on the way; they are of recalibrated statistics, too, and the
            training does not notice.
        compare: also score the network as trained.
        teacher: the base network, for tasks that need it; only read.
        cut: what the network is, for tasks that want it.
        cuts: what is cut while it trains, for tasks that can.

    Raises:
        EvaluationError, ConfigError, Stopped: see `Task.train`.
    """
    recalibrate = _recalibration(task, network)
    more: dict[str, Any] = {"teacher": teacher} if task.needs_teacher else {}
    if task.wants_cut:
        more["cut"] = cut
    if cuts is not None:
        more["cuts"] = cuts
    masked = nullcontext() if task.cuts_in_training else gradients_masked(network)
    with masked:  # a training of the user's own knows no masks
        task.train(
            network,
            epochs=epochs,
            seed=seed,
            lr=lr,
            progress=progress,
            watch=watch,
            score=partial(_score_now, network, score, recalibrate) if scores_epochs else None,
            **more,
        )
    keep_masks(network)
    keep_bits(network)  # of one that knows none
    replaced, as_trained = recalibrate(), None
    if replaced and compare:
        recalibrated = restore(replaced)
        as_trained = score(network)
        restore(recalibrated)
    return TrainedScore(score(network), as_trained)


def distilled(task: Task, evaluator: str) -> Task:
    """The task, its trainings learning from the base network, too.

    Raises:
        ConfigError: it cannot be told to.
    """
    taught = task.distilled()
    if taught is None:
        raise ConfigError(
            f"evaluator {evaluator!r}: distil needs a task that trains by a recipe; leave it out, or let your own "
            f"train_func learn from its teacher"
        )
    return taught


def _recalibration(task: Task, network: nn.Module) -> Callable[[], Replaced]:
    """What re-estimates the statistics that have changed since now."""
    before = buffers_of(network)

    def recalibrate() -> Replaced:
        inputs = task.calibration_inputs(CALIBRATION_BATCHES, seed=0) if before else []
        return recalibrate_batch_norm(network, inputs, device=task.device, since=before)

    return recalibrate


def _score_now(network: nn.Module, score: Callable[[nn.Module], float], recalibrate: Callable[[], Replaced]) -> float:
    """The score with recalibrated statistics; afterwards they are as they were."""
    replaced = recalibrate()
    try:
        return score(network)
    finally:
        restore(replaced)
