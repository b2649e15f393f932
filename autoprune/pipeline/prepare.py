"""Everything that can be wrong with a job is found here, before a run directory is made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import nn

from autoprune.allocation import ALLOCATIONS
from autoprune.config import Job
from autoprune.controllers import make_controller
from autoprune.cost.repair import BudgetedSpace
from autoprune.errors import ConfigError
from autoprune.evaluators.base import check_evaluator
from autoprune.importance import CRITERIA
from autoprune.space.choices import exclude
from autoprune.space.groups import SearchSpace
from autoprune.space.trace import trace
from autoprune.space.verify import verify
from autoprune.training import PROTOCOLS
from autoprune.training.task import Task


@final
@dataclass(frozen=True, eq=False)
class Ingredients:
    """What a run works on.

    Attributes:
        job: every option, defaults filled in.
        model: the full network; only read.
        trained: its weights are the base network's; False: the run trains a copy first.
        inputs: positional example inputs.
        task: trains and scores.
    """

    job: Job
    model: nn.Module
    trained: bool
    inputs: tuple[Any, ...]
    task: Task


@final
@dataclass(frozen=True, eq=False)
class Prepared:
    """Ingredients whose space is traced, verified and under a budget that can be reached."""

    ingredients: Ingredients
    space: SearchSpace
    domain: BudgetedSpace
    fingerprints: Mapping[str, str]


def prepare(ingredients: Ingredients) -> Prepared:
    """Trace, verify and budget the space, and look up every name of the job; writes nothing.

    Raises:
        AutopruneError: the model, the space options, the budget, a name or a setting cannot be used.
    """
    job, task = ingredients.job, ingredients.task
    _check_names(job)
    if not task.trains and (not ingredients.trained or job.verdict.seeds or job.search.evaluator.name == "scratch"):
        raise ConfigError(
            "this job trains networks (the base network, the evaluator or the verdict), but there is no train_func: "
            "pass train_func(model, epochs, seed), or set verdict seeds to 0, the evaluator to 'inherited' and give "
            "a trained model"
        )
    traced = trace(ingredients.model, ingredients.inputs, options=job.space)
    space = exclude(traced.space, job.space.exclude)
    space = verify(ingredients.model, space, ingredients.inputs, seed=job.seed).space
    domain = BudgetedSpace(space, job.constraints)
    make_controller(job.search.controller.name, domain, seed=job.seed, settings=job.search.controller.settings)
    fingerprints = {
        "job": _digest(json.dumps(job.model_dump(mode="json"), sort_keys=True)),
        "model code": traced.code_fingerprint,
        "space": space.fingerprint,
        "data": task.fingerprint,
    }
    if ingredients.trained:
        fingerprints["weights"] = weights_fingerprint(ingredients.model)
    return Prepared(ingredients, space, domain, fingerprints)


def weights_fingerprint(model: nn.Module) -> str:
    """A hash of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _check_names(job: Job) -> None:
    CRITERIA.get(job.search.criterion)
    for name in job.search.allocations:
        ALLOCATIONS.get(name)
    for name in job.verdict.protocols:
        PROTOCOLS.get(name)
    check_evaluator(job.search.evaluator.name, job.search.evaluator.settings)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
