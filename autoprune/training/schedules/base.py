"""The learning rate of a recipe: its warm-up, then its schedule."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real

from autoprune.config.settings import bind
from autoprune.config.training import Recipe
from autoprune.errors import ConfigError, blame
from autoprune.training.schedules import SCHEDULES


def learning_rate(recipe: Recipe) -> Callable[[float], float]:
    """Return the function that gives the learning rate when a share (0 to 1) of the training is over.

    Raises:
        RegistryError: no such schedule.
        ConfigError: a setting that it does not have or of a wrong value, or factors that are no numbers of 0 or more.
    """
    shape = bind(SCHEDULES, recipe.schedule.name, recipe.schedule.settings)
    warm = recipe.warmup_epochs / recipe.epochs
    what = f"schedule {recipe.schedule.label!r}"
    for i in range(11):
        with blame(ConfigError, f"{what} fails", then="Correct its settings or its code."):
            factor: object = shape(warm + (1 - warm) * i / 10, warm)
        if not isinstance(factor, Real) or not 0 <= float(factor) < math.inf:
            raise ConfigError(f"{what} gives {factor!r}; it must give finite numbers of at least 0")

    def at(done: float) -> float:
        return recipe.lr * done / warm if done < warm else recipe.lr * float(shape(done, warm))

    return at
