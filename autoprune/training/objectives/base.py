"""The interface of objectives."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from typing import Any, final

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from autoprune.config.settings import bind
from autoprune.config.training import Recipe
from autoprune.data.batch import Batch
from autoprune.errors import ConfigError, EvaluationError, blame
from autoprune.training.objectives import OBJECTIVES

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
    """

    needs_teacher: bool = False
    teacher: nn.Module | None = None

    @abstractmethod
    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the loss, a scalar.

        Args:
            model: in training mode; `batch.outputs(model)` are its outputs.
            batch: on the device of the model.

        Raises:
            EvaluationError: outputs or targets of another form than it can compare.
        """


def make_objective(recipe: Recipe) -> Objective:
    """Build the objective of a recipe.

    Raises:
        RegistryError: no such objective.
        ConfigError: a setting that it does not have or of a wrong value, label smoothing where it knows none, or
            something else than an `Objective`.
    """
    chosen = recipe.objective
    settings, what = dict(chosen.settings), f"objective {chosen.label!r}"
    part = OBJECTIVES.get(chosen.name)
    if callable(part) and _SMOOTHING in inspect.signature(part).parameters:
        settings.setdefault(_SMOOTHING, recipe.label_smoothing)
    elif recipe.label_smoothing:
        raise ConfigError(
            f"training: label_smoothing is {recipe.label_smoothing}, but {what} has none; leave it out, or choose "
            f"another objective"
        )
    part = bind(OBJECTIVES, chosen.name, settings)
    with blame(ConfigError, f"{what} cannot be made", then="Correct its settings or its code."):
        made = part()
    if not isinstance(made, Objective):
        raise ConfigError(f"{what} is a {type(made).__name__}: derive it from Objective")
    return made


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
        return self._objective(_Answers(outputs, inputs, self._label), Batch(inputs, targets))


@final
class _Answers(nn.Module):
    """Answers for the inputs of one batch with the outputs that are known."""

    def __init__(self, outputs: Any, inputs: Any, label: str) -> None:
        super().__init__()
        self._outputs, self._label = (outputs,), label  # in a tuple: outputs may be what a module would register
        self._known = {id(leaf) for leaf in pytree.tree_leaves(inputs)}

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if any(id(leaf) not in self._known for leaf in pytree.tree_leaves((args, kwargs))):
            raise EvaluationError(
                f"objective {self._label!r} runs the network on other inputs than those of the batch, so that nothing "
                f"can be said of single channels; choose a criterion without gradients"
            )
        return self._outputs[0]
