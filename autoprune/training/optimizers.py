"""Optimizers by name: any class of torch.optim, or one's own as module:Class."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from autoprune.config.parts import NamedPart
from autoprune.config.settings import check_settings
from autoprune.config.training import Recipe
from autoprune.errors import ConfigError, blame, suggest
from autoprune.registry import load_object

_GIVEN = ("params", "lr")
"""What the training itself gives."""


def optimizer_class(name: str) -> Callable[..., Optimizer]:
    """The class of this name, in any case, or at `module:Class`.

    Raises:
        RegistryError: `module:Class` cannot be imported.
        ConfigError: no such class, or one that a training by gradients cannot use.
    """
    known = {
        found.__name__.lower(): found
        for found in vars(torch.optim).values()
        if inspect.isclass(found) and issubclass(found, Optimizer) and found is not Optimizer
    }
    found: Any = load_object(name) if ":" in name else known.get(name.lower())
    if found is None:
        raise ConfigError(
            f"unknown optimizer {name!r}; choose one of {', '.join(sorted(known))}, or give your own as module:Class."
            f"{suggest(name.lower(), known)}"
        )
    if not inspect.isclass(found) or not issubclass(found, Optimizer):
        raise ConfigError(f"optimizer {name!r} is no class derived from torch.optim.Optimizer")
    closure = inspect.signature(found.step).parameters.get("closure")
    if closure is not None and closure.default is closure.empty:
        raise ConfigError(
            f"optimizer {name!r} evaluates the loss several times in a step, which trainings by batches do not; "
            f"choose one that takes the gradient once, such as sgd or adamw"
        )
    if "lr" not in inspect.signature(found).parameters:
        raise ConfigError(f"optimizer {name!r} takes no lr, which the schedule sets before each step; give it one")
    return found


def make_optimizer(recipe: Recipe, model: nn.Module) -> Optimizer:
    """The optimizer of a recipe for all parameters of a model.

    `sgd` has `momentum` and `nesterov` of the recipe, and all have its `weight_decay`, unless their settings say
    otherwise. Without `decay_norms` vectors and biases have no weight decay (He et al. 2019, Bag of Tricks, arXiv
    1812.01187, section 3.1).

    Raises:
        ConfigError: see `optimizer_class`; a setting that the class does not have, or of a wrong value.
    """
    chosen = recipe.optimizer
    made = optimizer_class(chosen.name)
    what = f"optimizer {chosen.label!r}"
    if "lr" in chosen.settings:
        raise ConfigError(f"{what}: the learning rate is `lr` of `training`; leave it out of the optimizer's settings")
    check_settings(made, chosen.settings, what=f"optimizer {chosen.name!r}", reserved=_GIVEN)
    settings = _settings(recipe, made)
    with blame(ConfigError, f"{what} cannot be made", then="Correct its settings."):
        return made(_groups(recipe, model), lr=recipe.lr, **settings)


@torch.no_grad()
def forget(optimizer: Optimizer, parameter: Tensor, left_out: Tensor) -> None:
    """Set what an optimizer has gathered of some of the numbers of a parameter to 0, should they train again.

    Args:
        optimizer: of the parameter.
        parameter: one of those that it moves.
        left_out: (of its shape) True for these numbers.
    """
    for gathered in optimizer.state.get(parameter, {}).values():
        if isinstance(gathered, Tensor) and gathered.shape == parameter.shape:
            gathered.masked_fill_(left_out, 0)


def check_optimizer(recipe: Recipe) -> None:
    """Build the optimizer, and let it do one step on a matrix.

    Raises:
        ConfigError: see `make_optimizer`; or the step fails.
    """
    matrix = nn.Linear(2, 2, bias=False, dtype=torch.float32)
    matrix.weight.grad = torch.zeros_like(matrix.weight)
    optimizer = make_optimizer(recipe, matrix)
    failing = f"optimizer {recipe.optimizer.label!r} cannot do a step"
    with blame(ConfigError, failing, then="Correct its settings, or choose one for dense gradients, such as adamw."):
        optimizer.step()


def _settings(recipe: Recipe, made: Callable[..., Optimizer]) -> dict[str, Any]:
    taken = inspect.signature(made).parameters
    own = ("momentum", "nesterov", "weight_decay") if made is torch.optim.SGD else ("weight_decay",)
    if recipe.weight_decay and recipe.weight_decay != Recipe.model_fields["weight_decay"].default:
        _check_taken(recipe.optimizer, taken, "weight_decay", recipe.weight_decay)
    settings = {name: getattr(recipe, name) for name in own if name in taken} | dict(recipe.optimizer.settings)
    return {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}


def _check_taken(chosen: NamedPart, taken: Mapping[str, object], name: str, value: float) -> None:
    if name not in taken:
        raise ConfigError(
            f"training: {name} is {value!r}, but optimizer {chosen.name!r} takes none; leave it out, or choose another"
        )


def _groups(recipe: Recipe, model: nn.Module) -> Any:
    if recipe.decay_norms:
        return model.parameters()
    named = dict(model.named_parameters())
    spared = {name for name, parameter in named.items() if parameter.ndim <= 1 or name.endswith("bias")}
    groups: list[dict[str, Any]] = [
        {"params": [parameter for name, parameter in named.items() if name not in spared]},
        {"params": [named[name] for name in named if name in spared], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
