"""Everything that can be wrong with a job is found here, before a run directory is made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from torch import nn

from autoprune.allocation import ALLOCATIONS
from autoprune.config import Job
from autoprune.controllers import make_controller
from autoprune.controllers.base import Controller
from autoprune.cost.repair import BudgetedSpace
from autoprune.errors import BudgetError, ConfigError, blame
from autoprune.evaluators.base import Evaluator, Workbench, check_evaluator, make_evaluator
from autoprune.importance import CRITERIA
from autoprune.importance.members import channel_scores
from autoprune.search.ledger import open_storage
from autoprune.space.choices import exclude
from autoprune.space.groups import FloatArray, SearchSpace, Widths
from autoprune.space.slicing import ranking_from_scores
from autoprune.space.trace import trace
from autoprune.space.verify import verify
from autoprune.training import PROTOCOLS
from autoprune.training.task import Task
from autoprune.verdict.baselines import plan


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

    def controller(self) -> Controller:
        """A new controller of the job."""
        chosen, seed = self.ingredients.job.search.controller, self.ingredients.job.seed
        return make_controller(chosen.name, self.domain, seed=seed, settings=chosen.settings)

    def plan(self, scores: Sequence[FloatArray]) -> list[tuple[str, Widths]]:
        """What the search scores first, given the importance of the base network's channels."""
        job = self.ingredients.job
        return plan(
            self.domain,
            scores,
            allocations=job.search.allocations,
            random_candidates=job.verdict.random_candidates,
            seed=job.seed,
        )

    def scores(self, base: nn.Module) -> list[FloatArray]:
        """Per group, the importance of each channel."""
        job = self.ingredients.job
        return channel_scores(base, self.space, job.search.criterion, seed=job.seed)

    def bench(self, base: nn.Module, scores: Sequence[FloatArray]) -> Workbench:
        """What candidates of this base network are made from."""
        given = self.ingredients
        return Workbench(base, self.space, ranking_from_scores(scores), given.task, given.job.training.epochs)

    def evaluator(self, bench: Workbench) -> Evaluator:
        """A new evaluator of the job."""
        chosen = self.ingredients.job.search.evaluator
        return make_evaluator(chosen.name, bench, chosen.settings)


def prepare(ingredients: Ingredients) -> Prepared:
    """Trace, verify and budget the space, and build each part of the job once; writes nothing.

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
    if not domain.budget.binds:
        raise BudgetError(f"budget {domain.budget} cuts nothing: the full network keeps it; give a limit below 100%")
    fingerprints = {
        "job": _digest(json.dumps(job.model_dump(mode="json"), sort_keys=True)),
        "model code": traced.code_fingerprint,
        "space": space.fingerprint,
        "data": task.fingerprint,
        "weights": weights_fingerprint(ingredients.model),
    }
    prepared = Prepared(ingredients, space, domain, fingerprints)
    _rehearse(prepared)
    return prepared


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


def _rehearse(prepared: Prepared) -> None:
    """Build from the network as it is what the run will build from the trained one, so that it cannot fail late."""
    base, search = prepared.ingredients.model, prepared.ingredients.job.search
    scores = prepared.scores(base)
    prepared.plan(scores)
    with _built("controller", search.controller.name, search.controller.settings):
        prepared.controller().ask(1)
    with _built("evaluator", search.evaluator.name, search.evaluator.settings):
        prepared.evaluator(prepared.bench(base, scores))
    if search.storage is not None:
        open_storage(search.storage, Path())


def _built(kind: str, name: str, settings: Mapping[str, Any]) -> AbstractContextManager[None]:
    """Inside, whatever a setting of a wrong type does to a part becomes a message."""
    return blame(ConfigError, f"{kind} {name!r} fails with settings {dict(settings)}", then="Correct its settings.")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
