"""What a recipe names, made and tried before a run begins. The recipe itself is `autoprune.config.training.Recipe`."""

from __future__ import annotations

import torch
from torch import nn

from autoprune.config.training import Recipe
from autoprune.data.batch import Batch
from autoprune.data.rand_augment import rand_augment
from autoprune.errors import ConfigError, blame
from autoprune.randomness import seeded
from autoprune.space.copying import copy_network
from autoprune.training.freezing import check_frozen
from autoprune.training.objectives.base import make_objective
from autoprune.training.optimizers import check_optimizer
from autoprune.training.schedules.base import learning_rate
from autoprune.training.terms.base import make_terms
from autoprune.training.trainer import Trainer

__all__ = ["Recipe", "check_recipe", "rehearse"]


def check_recipe(recipe: Recipe) -> None:
    """Build each part that a recipe names.

    Raises:
        ConfigError: an unknown name, a setting that a part does not have, or one of a wrong value.
    """
    learning_rate(recipe)
    make_objective(recipe)
    make_terms(recipe.terms)
    check_optimizer(recipe)
    if recipe.rand_augment is not None:
        rand_augment(recipe.rand_augment, own=recipe.augment)


def rehearse(recipe: Recipe, model: nn.Module, batch: Batch, *, device: torch.device) -> None:
    """Do one step of a training on a copy of the model, which shows what does not fit it or the data.

    Args:
        recipe: how.
        model: only read; it is its own teacher, where there is to be one.
        batch: training examples.
        device: where.

    Raises:
        ConfigError: a part of the recipe does not work with the model or the data.
    """
    failing = "training: a step with this recipe fails"
    check_frozen(model, recipe.freeze)
    with blame(ConfigError, failing, then="Correct `training` in the job, or the part that fails."), seeded(0):
        trainer = Trainer(copy_network(model), recipe, device=device, seed=0, teacher=model)
        if trainer.needs_batch:
            trainer.begin(batch)
        trainer.step([batch], len(batch), done=0.5)
