"""Several tasks that share the weights of one network: Mallya & Lazebnik 2018, PackNet, arXiv 1711.05769."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from autoprune.errors import ConfigError
from autoprune.evaluators.base import Evaluator, check_counts
from autoprune.evaluators.candidates import CandidateFactory
from autoprune.evaluators.packed import Fixed, PackedNetwork, classifier_of
from autoprune.inherit.bn_recalibration import CALIBRATION_BATCHES, buffers_of, recalibrate_batch_norm
from autoprune.space.copying import copy_network
from autoprune.space.groups import Widths
from autoprune.tasks.classification import ClassificationTask, ClassOutputs
from autoprune.tasks.score import Score
from autoprune.training.state import on_cpu
from autoprune.training.terms.base import make_terms
from autoprune.training.watch import State, Watch

_CUT_OFF = 1e-6
"""Share of its variance in the base network below which a channel is constant but for rounding."""


@final
class PackNet(Evaluator):
    """What densities are worth if one network holds several tasks, each of them told which one it is.

    The classes are divided into tasks. One after the other, each trains all weights that are free, keeps the largest
    ones of every layer, sets the others to 0 and trains what it has kept, which nobody changes any more. It computes
    with the weights of all tasks before it, too. Biases, norms and their statistics, and all else without a density are
    those of the first task; of the classifier each task has the rows of its classes (section 3). Every task keeps the
    same share of what is free in a layer, such that tasks use as many weights *on average* as the widths say: cost is
    that of a cut network. The score is the mean over the tasks. As each is easier than all classes together, it is
    meant as an upper bound of what one network of these densities reaches on all of them; it is none by proof, as the
    first task has fewer weights, and a short training need not find it.

    The network begins as the base network, which has seen the classes of all tasks: of that, later tasks have what the
    first one keeps. Networks that are compared at the end and exported hold one task, all classes.

    Args:
        factory: what candidates are made from.
        tasks: how many parts the classes are divided into, in their order.
        epochs: passes over the examples of a task with all free weights; the paper has 20.
        retrain_epochs: those with what it has kept; the paper has 10.
        lr_share: learning rate, as a share of the recipe's; at 0.1 the paper's 1e-3. As norms no longer follow the
            weights, later tasks diverge at rates that the first one bears.
        validation_limit: score each task on this many validation examples (None: all of them).

    Raises:
        ConfigError: a number out of range, less than two classes for a task, a space without densities of single
            weights that compete inside their layer, a task other than classification, or a network whose outputs are
            not those of a linear layer.
    """

    kind = "training"

    def __init__(
        self,
        factory: CandidateFactory,
        *,
        tasks: int = 2,
        epochs: int = 4,
        retrain_epochs: int = 2,
        lr_share: float = 0.01,
        validation_limit: int | None = None,
    ) -> None:
        check_counts("packnet", least=2, tasks=tasks)
        check_counts("packnet", least=1, epochs=epochs, retrain_epochs=retrain_epochs)
        check_counts("packnet", least=1, validation_limit=validation_limit)
        number = isinstance(lr_share, int | float) and not isinstance(lr_share, bool)
        if not number or not 0 < lr_share < math.inf:
            raise ConfigError(f"evaluator 'packnet': lr_share must be a number above 0, got {lr_share!r}")
        _check_space(factory)
        task = factory.task
        if not isinstance(task, ClassificationTask):
            raise ConfigError(
                "evaluator 'packnet' divides classes into tasks, and this task has none; choose the task "
                "classification, or another evaluator"
            )
        model = copy_network(factory.model).to(task.device)
        self._classifier, classes = classifier_of(model, task.example_input().to(task.device))
        if tasks > classes // 2:
            raise ConfigError(
                f"evaluator 'packnet': each task needs two classes, and {classes} classes make at most {classes // 2} "
                f"tasks, got {tasks}"
            )
        self._factory, self._limit = factory, validation_limit
        self._lr, self._epochs = lr_share * task.recipe.lr, (epochs, retrain_epochs)
        self._parts = tuple(tuple(part.tolist()) for part in np.array_split(np.arange(classes), tasks))
        self._tasks = tuple(
            task.of_classes(part).compared_with(ClassOutputs(factory.model, part)) for part in self._parts
        )

    def evaluate(self, widths: Widths, *, seed: int, full: bool = False, watch: Watch | None = None) -> Score:
        """See `Evaluator.evaluate`."""
        packed, limit = self.packed(widths, seed=seed, watch=watch), None if full else self._limit
        scores = [task.scored(packed.of_task(i), limit=limit) for i, task in enumerate(self._tasks, 1)]
        errors = [score.standard_error for score in scores if score.standard_error is not None]
        error = math.hypot(*errors) / len(scores) if len(errors) == len(scores) else None
        return Score(float(np.mean([score.value for score in scores])), error)

    def packed(
        self,
        widths: Widths,
        *,
        seed: int,
        watch: Watch | None = None,
        done: Callable[[PackedNetwork, int], None] | None = None,
    ) -> PackedNetwork:
        """The network that holds all tasks.

        Args:
            widths: member of the space.
            seed: of all trainings.
            watch: is told of the epochs of all of them; there are no scores on the way.
            done: called after each task with the network and the task.

        Raises:
            EvaluationError, Stopped: see `Task.train`.
        """
        device = self._factory.task.device
        network = copy_network(self._factory.model).to(device)
        packed = PackedNetwork(network, self._factory.space, widths, self._parts, self._classifier)
        before, begun = buffers_of(packed.view(1)), 0
        earlier = None if watch is None else watch.restore()
        if earlier is not None:
            begun = earlier["number"]
            packed.view(1).load_state_dict(earlier["training"]["model"])
            packed.owners = {name: owner.to(device) for name, owner in earlier["owners"].items()}
            packed.pruned = (begun + 1) // 2
        for number in range(begun, 2 * len(self._tasks)):
            task, retrains = number // 2 + 1, number % 2 == 1
            if retrains and packed.pruned < task:
                packed.prune(task)
            own = None if watch is None else _Part(watch, packed, number, self._epochs, len(self._tasks), earlier)
            self._train(packed, task, epochs=self._epochs[retrains], seed=seed + number, watch=own)
            earlier = None
            if number == 1:
                self._settle(packed.view(1), before)
            if retrains and done is not None:
                done(packed, task)
        return packed

    def _settle(self, view: ClassOutputs, before: Mapping[str, Tensor]) -> None:
        """Give norms the statistics of the first task, which are those of all.

        A channel that it has cut off keeps the variance that it had before: it is a constant to the first task, and
        for later ones, which may use it, the norm would multiply by 1 / sqrt(eps) and trainings diverge.
        """
        inputs = self._tasks[0].calibration_inputs(CALIBRATION_BATCHES, seed=0)
        recalibrate_batch_norm(view, inputs, device=self._tasks[0].device, since=before)
        for name, buffer in view.named_buffers():
            if name.endswith("running_var"):
                buffer.copy_(torch.where(buffer <= _CUT_OFF * before[name], before[name], buffer))

    def _train(self, packed: PackedNetwork, task: int, *, epochs: int, seed: int, watch: Watch | None) -> None:
        """One training of a task; after the first one norms stay as they are."""
        part, view = self._tasks[task - 1], packed.view(task).to(self._factory.task.device)
        fixed = Fixed({f"network.{name}": mine for name, mine in packed.trained(task).items()})
        recipe = part.recipe
        frozen = [*recipe.freeze, *(f"network.{name}" for name in recipe.freeze), *(_norms(view) if task > 1 else ())]
        more: dict[str, Any] = {"teacher": ClassOutputs(self._factory.model, self._parts[task - 1])}
        part.train(
            view,
            epochs=epochs,
            seed=seed,
            lr=self._lr,
            watch=watch,
            recipe=recipe.model_copy(update={"freeze": tuple(frozen)}),
            terms=(*make_terms(recipe.terms), fixed),
            **(more if part.needs_teacher else {}),
        )
        fixed.put_back()  # averages of equal weights are not the same to the last bit


@final
class _Part(Watch):
    """Watches one of the trainings: to who watches them all, it goes on where the one before it has ended."""

    def __init__(
        self,
        watch: Watch,
        packed: PackedNetwork,
        number: int,
        epochs: tuple[int, int],
        tasks: int,
        earlier: State | None,
    ) -> None:
        self._watch, self._packed, self._number, self._earlier = watch, packed, number, earlier
        self._before = number // 2 * sum(epochs) + number % 2 * epochs[0]
        self._total = tasks * sum(epochs)

    def restore(self) -> State | None:
        return None if self._earlier is None else self._earlier["training"]

    def epoch(self, done: int, total: int, score: Callable[[], float] | None, state: Callable[[], State]) -> None:
        def everything() -> State:
            return {"number": self._number, "owners": on_cpu(self._packed.owners), "training": state()}

        self._watch.epoch(self._before + done, self._total, None, everything)


def _norms(network: nn.Module) -> list[str]:
    """Names of what has running statistics."""
    return [name for name, module in network.named_modules() if "running_mean" in module._buffers]


def _check_space(factory: CandidateFactory) -> None:
    densities = factory.space.densities
    if not densities:
        raise ConfigError(
            "evaluator 'packnet' lets each task keep single weights, and this space has no densities; set space: "
            "{density: {pattern: unstructured}}, or choose another evaluator"
        )
    other = next((density for density in densities if density.unit > 1 or density.rows > 1), None)
    if other is not None:
        how = other.pattern if other.pattern != "unstructured" else "weights that compete inside their output"
        raise ConfigError(
            f"evaluator 'packnet' lets each task keep single weights of a whole layer, and {other.group!r} has {how}; "
            f"set density: {{pattern: unstructured, compare: layer}}"
        )
