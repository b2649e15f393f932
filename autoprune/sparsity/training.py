"""One sparsity training, from a copy of the base network to scores and weights; runs where an engine has it run."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, final

import numpy as np
from torch import Tensor, nn

from autoprune.config.parts import NamedPart
from autoprune.config.training import Recipe
from autoprune.errors import ConfigError, EvaluationError, blame
from autoprune.evaluators.candidates import CandidateFactory
from autoprune.randomness import seeded
from autoprune.space.copying import copy_network
from autoprune.space.groups import FloatArray, Widths
from autoprune.sparsity.base import SparsityTraining, Subject, make_sparsity
from autoprune.tasks.base import Task
from autoprune.tasks.trained import RecipeTask
from autoprune.training.integrity import check_finite
from autoprune.training.objectives.base import Objective, make_objective
from autoprune.training.state import weights_as_bytes
from autoprune.training.terms.base import make_terms
from autoprune.training.watch import Watch


@final
@dataclass(frozen=True, slots=True)
class SparsityPiece:
    """One sparsity training that is to be done.

    Attributes:
        method: which, with its settings.
        epochs: passes over the training data.
        lr: highest learning rate.
        seed: of everything random.
        target: uniform widths on the budget.
    """

    method: NamedPart
    epochs: int
    lr: float
    seed: int
    target: Widths

    @property
    def key(self) -> str:
        """Names it among other work of a run."""
        return f"sparsity/{self.method.label}"


@final
@dataclass(frozen=True, slots=True, eq=False)
class Sparsified:
    """What a sparsity training leaves.

    Attributes:
        scores: per group (slots,) importance of each channel.
        weights: of the network in its own form, as the bytes of a safetensors file.
        passes: what it cost, in passes over the training data.
        seconds: wall time.
        lr: its highest learning rate, which is the method's own where that has one.
    """

    scores: tuple[FloatArray, ...]
    weights: bytes
    passes: float
    seconds: float
    lr: float


@final
@dataclass(frozen=True, slots=True, eq=False)
class _Begun:
    """A sparsity training that has been set up."""

    method: SparsityTraining
    subject: Subject
    recipe: Recipe
    model: nn.Module


def sparsify(factory: CandidateFactory, piece: SparsityPiece, watch: Watch | None = None) -> Sparsified:
    """Train a copy of the base network with the method, and read importances off it.

    Raises:
        ConfigError: the method can do nothing with the network.
        EvaluationError: the training diverged.
    """
    started, what = time.perf_counter(), f"sparsity training {piece.method.label!r}"
    begun = _begun(factory, piece)
    method, model = begun.method, trained(factory, begun.model, begun.method, begun.recipe, piece.seed, watch)
    with blame(EvaluationError, f"{what} has trained, but cannot be read"), seeded(piece.seed):
        scores = begun.subject.channels.split(_checked(method.scores(model), begun.subject, what).clamp(min=0))
        for group, score in _checked_blocks(method.block_scores(model), begun.subject, what).items():
            scores[group] = np.full_like(scores[group], score)
        settled = method.settle(model)
    check_finite(settled, what=f"{what}: the network", kind=EvaluationError, then="lower its learning rate")
    seconds = time.perf_counter() - started
    passes, lr = method.passes(piece.epochs), begun.recipe.lr
    return Sparsified(tuple(scores), weights_as_bytes(settled), passes, seconds, lr)


def check_fits(factory: CandidateFactory, piece: SparsityPiece) -> None:
    """Set the training up and go no further.

    Raises:
        ConfigError: the method can do nothing with the network.
    """
    begun = _begun(factory, piece)
    with blame(ConfigError, f"sparsity training {piece.method.label!r} cannot begin with this network"):
        begun.method.objective()


def _checked(scores: object, subject: Subject, what: str) -> Tensor:
    """Importances as `SparsityTraining.scores` must give them."""
    number = subject.channels.number
    if not isinstance(scores, Tensor) or scores.shape != (number,):
        given = f"a tensor of shape {tuple(scores.shape)}" if isinstance(scores, Tensor) else type(scores).__name__
        raise EvaluationError(f"{what} gives {given} as scores; it must give ({number},), one for each channel")
    if not bool(scores.isfinite().all()):
        raise EvaluationError(f"{what}: scores are not all finite; lower its learning rate or correct its code")
    return scores


def _checked_blocks(scores: Mapping[int, float], subject: Subject, what: str) -> Mapping[int, float]:
    """Importances as `SparsityTraining.block_scores` must give them."""
    blocks = subject.space.presence.blocks
    wrong = {group: score for group, score in scores.items() if group not in blocks or not 0 <= score < math.inf}
    if wrong:
        raise EvaluationError(
            f"{what} gives {wrong} as scores of blocks; it must give finite numbers of at least 0 for groups of "
            f"blocks, which are {[*blocks]}"
        )
    return scores


def _begun(factory: CandidateFactory, piece: SparsityPiece) -> _Begun:
    method, task = make_sparsity(piece.method), factory.task
    recipe = _recipe(factory, piece, method)
    subject = Subject(
        copy_network(factory.model).to(task.device),
        factory.space,
        piece.target,
        recipe,
        piece.seed,
        lambda n: task.calibration_batches(n, seed=piece.seed),
        max(1, task.training_examples or 1),
        task.objective,
        *_objectives(task, recipe),
    )
    failing = f"sparsity training {piece.method.label!r} cannot begin with this network"
    with blame(ConfigError, failing), seeded(piece.seed):
        if factory.space.densities or factory.space.factors or factory.space.bits or not subject.channels.number:
            raise ConfigError(
                f"sparsity training {piece.method.label!r} finds widths of channels, and this space has none (weights, "
                f"ranks and blocks are no channels); leave `sparsity` out, or search widths"
            )
        return _Begun(method, subject, recipe, method.set_up(subject))


def trained(
    factory: CandidateFactory,
    model: nn.Module,
    method: SparsityTraining,
    recipe: Recipe,
    seed: int,
    watch: Watch | None = None,
) -> nn.Module:
    """The model itself after the training, beside whose terms the method takes part in each step.

    Raises:
        EvaluationError, ConfigError, Stopped: see `Task.train`.
    """
    task, objective = factory.task, method.objective()
    more: dict[str, Any] = {"recipe": recipe, "terms": (*make_terms(recipe.terms), method), "objective": objective}
    if task.needs_teacher or (objective is not None and objective.needs_teacher):
        more["teacher"] = factory.model
    task.train(model, epochs=recipe.epochs, seed=seed, watch=watch, **more)
    return model


def _objectives(task: Task, recipe: Recipe) -> tuple[Callable[[], Objective], Callable[[], Objective]]:
    """What the task trains for, and the same with the base network as teacher."""
    taught = task.distilled()
    goal = task.new_objective if isinstance(task, RecipeTask) else partial(make_objective, recipe)
    return goal, taught.new_objective if isinstance(taught, RecipeTask) else goal


def _recipe(factory: CandidateFactory, piece: SparsityPiece, method: SparsityTraining) -> Recipe:
    recipe = factory.task.recipe
    if recipe is None or not factory.task.takes_terms:
        raise ConfigError(
            f"sparsity training {piece.method.label!r} takes part in the steps of a training, and this task trains in "
            f"a way of its own; leave `sparsity` out, or choose the task classification"
        )
    if recipe.freeze:
        recipe = recipe.model_copy(update={"freeze": (*recipe.freeze, *(f"network.{name}" for name in recipe.freeze))})
    return method.recipe(recipe.over(piece.epochs, lr=piece.lr))
