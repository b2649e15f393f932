"""The interface of objectives."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, final

import torch
from torch import Tensor, nn

from autoprune.config.parts import NamedPart
from autoprune.config.settings import bind
from autoprune.config.training import Recipe
from autoprune.data.batch import Batch
from autoprune.errors import ConfigError, blame
from autoprune.training.objectives import OBJECTIVES
from autoprune.training.objectives.answers import Answers
from autoprune.training.objectives.memory import TeacherMemory

_SMOOTHING = "label_smoothing"


class Objective(ABC):
    """Called with a network and a batch, gives the loss; made anew for each training, as `Part(**settings)`.

    It is the mean over examples, so that it does not matter how they are spread over batches. One that has the setting
    `label_smoothing` is given that of the recipe, unless its own settings say otherwise.

    Attributes:
        needs_teacher: whether it wants the base network as `teacher`.
        teacher: set before the first call where it is wanted: a copy of the base network in eval mode on the device of
            the training, whose parameters take no gradients; only read. None in trainings that have none, as that of
            the base network itself.
        memory: where answers of the teacher may be kept, set with it where that can pay; see `teach`.
        needs_batch: whether it wants `begin` before the first step, and after each cut of a network in training.
    """

    needs_teacher: bool = False
    needs_batch: bool = False
    teacher: nn.Module | None = None
    memory: TeacherMemory | None = None

    @abstractmethod
    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the loss, a scalar.

        Args:
            model: in training mode; `batch.outputs(model)` are its outputs.
            batch: on the device of the model.

        Raises:
            EvaluationError: outputs or targets of another form than it can compare.
        """

    def begin(self, model: nn.Module, batch: Batch) -> None:  # noqa: B027
        """The network has this form now; only called where `needs_batch`.

        Args:
            model: only read.
            batch: some training examples, on the device of the model; the same ones for the same seed.

        Raises:
            ConfigError: the objective does not fit the model.
        """

    def parameters(self) -> Iterable[nn.Parameter]:
        """What is trained along with the network, from `begin` on, and is no part of it."""
        return ()

    def state_dict(self) -> dict[str, Any]:
        """All that it has gathered or trained: tensors, numbers, texts, and lists and dicts of them."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:  # noqa: B027
        """Go on from a state, after `begin`; its tensors are on the CPU."""

    @property
    def places(self) -> tuple[str, ...]:
        """Names of the modules whose outputs it wants of both networks, from `begin` on."""
        return ()

    @final
    def teach(self, batch: Batch, answer: Callable[[nn.Module, Batch], Any]) -> Any:
        """What the teacher answers to a batch, without gradients, or what is known of it.

        Args:
            batch: as given to the objective.
            answer: (teacher, batch) -> tensors, and mappings, lists and tuples of them.
        """
        teacher = self.teacher
        if teacher is None:
            raise ConfigError("objective: there is no teacher to ask; ask whether `teacher` is None first")
        with torch.no_grad():
            if self.memory is None:
                return answer(teacher, batch)
            return self.memory.recall(batch, lambda filled: answer(teacher, filled))


def make_objective(recipe: Recipe) -> Objective:
    """Build the objective of a recipe.

    Raises:
        RegistryError: no such objective.
        ConfigError: a setting that it does not have or of a wrong value, label smoothing where it knows none, or
            something else than an `Objective`.
    """
    chosen = recipe.objective
    if recipe.label_smoothing and not _smooths(chosen):
        raise ConfigError(
            f"training: label_smoothing is {recipe.label_smoothing}, but objective {chosen.label!r} has none; leave it "
            f"out, or choose another objective"
        )
    return build_objective(chosen, recipe.label_smoothing)


def build_objective(chosen: NamedPart, label_smoothing: float = 0.0) -> Objective:
    """Build an objective; smoothing goes to one that knows it, where its settings do not say otherwise.

    Raises:
        RegistryError, ConfigError: see `make_objective`.
    """
    settings, what = dict(chosen.settings), f"objective {chosen.label!r}"
    if _smooths(chosen):
        settings.setdefault(_SMOOTHING, label_smoothing)
    part = bind(OBJECTIVES, chosen.name, settings)
    with blame(ConfigError, f"{what} cannot be made", then="Correct its settings or its code."):
        made = part()
    if not isinstance(made, Objective):
        raise ConfigError(f"{what} is a {type(made).__name__}: derive it from Objective")
    return made


def _smooths(chosen: NamedPart) -> bool:
    part = OBJECTIVES.get(chosen.name)
    return callable(part) and _SMOOTHING in inspect.signature(part).parameters


@final
class LossOfOutputs:
    """An objective as a function of outputs that are there already, as criteria with gradients need it.

    The network that the objective is given answers with these outputs, and only for the inputs of the batch. There is
    no teacher, as in the training of the base network itself.

    Args:
        objective: the objective.
        label: its name, for messages.
    """

    def __init__(self, objective: Objective, label: str) -> None:
        self._objective, self._label = objective, label

    def __call__(self, outputs: Any, targets: Any, inputs: Any = ()) -> Tensor:
        """Return the loss.

        Args:
            outputs: of the network for `inputs`.
            targets: of the batch.
            inputs: of the batch.

        Raises:
            EvaluationError: the objective runs the network on other inputs.
        """
        return self._objective(Answers(outputs, inputs, self._label), Batch(inputs, targets))
