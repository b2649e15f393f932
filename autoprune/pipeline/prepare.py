"""Everything that can be wrong with a job is found here, before a run directory is made.

Longer than others, as a check that stood elsewhere would be forgotten by one of the ways into a run.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from numbers import Integral, Real
from pathlib import Path
from typing import Any, final

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from autoprune.allocation import ALLOCATIONS
from autoprune.config.job import Job
from autoprune.config.parts import NamedPart, PartOptions
from autoprune.config.settings import bind
from autoprune.config.stopping import NEVER
from autoprune.controllers import make_controller
from autoprune.controllers.base import Controller
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.cost.latency.profile_files import profile_fingerprint
from autoprune.data.batch import Batch
from autoprune.errors import BudgetError, ConfigError, EvaluationError, blame
from autoprune.evaluators.base import CandidateFactory, Evaluator, check_evaluator, kind_of, make_evaluator
from autoprune.importance.evidence import EVIDENCE_BATCHES, Calibration
from autoprune.importance.members import channel_scores, ranking_of, unit_scores
from autoprune.importance.scoring import ChosenCriterion, looks_at_data
from autoprune.inherit.base import Chain
from autoprune.inherit.bn_recalibration import CALIBRATION_BATCHES, recalibrate_batch_norm
from autoprune.latency.choice import METRIC as LATENCY
from autoprune.pipeline.rules import rule_inputs
from autoprune.progress.callback_list import make_callback
from autoprune.progress.callbacks import Callback
from autoprune.randomness import untouched
from autoprune.redaction import masked
from autoprune.space.groups import FloatArray, SearchSpace, Widths
from autoprune.space.origin import Origin, origin_of
from autoprune.space.tracing.program import Example
from autoprune.space.tracing.trace import trace
from autoprune.space.verification.verify import verify
from autoprune.tasks.base import Task
from autoprune.training.integrity import Snapshot, check_finite
from autoprune.training.protocols import make_protocol
from autoprune.training.recipe import check_recipe, rehearse
from autoprune.trials.ledger import open_storage
from autoprune.verdict.baselines import plan
from autoprune.verdict.rules import RuleInputs, criterion_for

JOB_FORMAT = 2
"""Of the jobs of runs that begin now: early stopping and limits are in `search` and fingerprinted. In 1 they were the
engine's, and not."""


@final
@dataclass(frozen=True, eq=False)
class RunInputs:
    """What a run works on.

    Attributes:
        job: every option, defaults filled in.
        model: the full network; only read.
        trained: its weights are the base network's; False: the run trains a copy first.
        example: what the model is traced with.
        task: trains and scores.
        callbacks: told what happens, beside those that the job names.
    """

    job: Job
    model: nn.Module
    trained: bool
    example: Example
    task: Task
    callbacks: tuple[Callback, ...] = ()


@final
@dataclass(frozen=True, eq=False)
class Prepared:
    """RunInputs whose space is traced, verified and under a budget that can be reached.

    Attributes:
        run_inputs: what the run works on.
        network: the full network in the form of the space, with the tensors of the given model; only read.
        space: what can be cut, and how.
        origin: what the graph was traced from; None for a space of module form.
        domain: the space under its budget.
        fingerprints: of everything that a resumed run must find as it was.
        given: what the caller's model held, from which `network` has its tensors.
    """

    run_inputs: RunInputs
    network: nn.Module
    space: SearchSpace
    origin: Origin | None
    domain: BudgetedSpace
    fingerprints: Mapping[str, str]
    given: Snapshot

    def check_given(self) -> None:
        """Check that the caller's model is as it was; raises RunError where it is not."""
        self.given.check(
            "the given model was changed while the search ran (by a function that works on it?)",
            "let functions only use the network that they are called with",
        )

    def differing(self, recorded: Mapping[str, str], *, job_format: int = JOB_FORMAT) -> list[str]:
        """What a run found otherwise than it is now.

        Args:
            recorded: the fingerprints of that run.
            job_format: that it began with.
        """
        same = {name: recorded.get(name) == value for name, value in self.fingerprints.items()}
        same["job"] = same_job(recorded.get("job"), self.run_inputs.job, job_format=job_format)
        return [name for name in same if not same[name]]

    def controller(self, scores: Sequence[FloatArray], *, learned: Any = None) -> Controller:
        """A new controller of the job, given the importance of the base network's channels.

        Args:
            scores: the importances.
            learned: what the controller of another budget has learned.
        """
        chosen, job = self.run_inputs.job.search.controller, self.run_inputs.job
        return make_controller(
            chosen.name,
            self.domain,
            seed=job.seed,
            settings=chosen.settings,
            trials=job.search.trials,
            importance=unit_scores(self.space, scores),
            learned=learned,
        )

    def plan(
        self,
        scores: Sequence[FloatArray],
        *,
        inputs: RuleInputs | None = None,
        skipped: Callable[[str, str], None] = lambda label, reason: None,
    ) -> list[tuple[str, Widths]]:
        """What the search scores first, given the importance of the base network's channels; see `baselines.plan`."""
        job = self.run_inputs.job
        return plan(
            self.domain,
            unit_scores(self.space, scores),
            allocations=job.search.allocations,
            random_candidates=job.verdict.random_candidates,
            seed=job.seed,
            inputs=inputs,
            skipped=skipped,
        )

    def scores(
        self, base: nn.Module, *, batches: int = EVIDENCE_BATCHES, criterion: NamedPart | None = None
    ) -> list[FloatArray]:
        """Per group, the importance of each channel.

        Args:
            base: the base network.
            batches: training batches to gather evidence on, where the criterion needs data.
            criterion: another one than the job's.
        """
        job, task = self.run_inputs.job, self.run_inputs.task
        chosen = criterion or job.search.criterion
        calibration = None
        if looks_at_data(chosen) and (examples := task.calibration_examples(batches, seed=0)):
            calibration = Calibration(examples, task.objective, task.device)
        return channel_scores(base, self.space, chosen, seed=job.seed, calibration=calibration)

    def factory(self, base: nn.Module, scores: Sequence[FloatArray]) -> CandidateFactory:
        """What candidates of this base network are made from."""
        task, job = self.run_inputs.task, self.run_inputs.job
        ranking, epochs = ranking_of(self.space, scores), job.training.epochs
        made = CandidateFactory(base, self.space, ranking, task, epochs, job.search.inherit, job.verdict.inherit)
        own = job.search.evaluator.settings if job.search.evaluator.name == "inherited" else {}
        return made.calibrated(own.get("calibration_batches", CALIBRATION_BATCHES))

    def evaluator(self, factory: CandidateFactory) -> Evaluator:
        """A new evaluator of the job."""
        chosen = self.run_inputs.job.search.evaluator
        return make_evaluator(chosen.name, factory, chosen.settings)


def prepare(run_inputs: RunInputs) -> tuple[Prepared, ...]:
    """Trace, verify and budget the space, once for all budgets of the job, and build each of its parts; writes nothing.

    Raises:
        AutopruneError: the model, the space options, a budget, a name or a setting cannot be used.
    """
    job, task = run_inputs.job, run_inputs.task
    _check_parts(job)
    evaluator_trains = kind_of(job.search.evaluator.name, job.search.evaluator.settings) == "training"
    if not task.trains and (not run_inputs.trained or job.verdict.seeds or evaluator_trains):
        raise ConfigError(
            f"this job trains networks (the base network, the evaluator or the verdict), but {task.why_untrained}, or "
            f"set verdict seeds to 0, choose an evaluator that does not train (the default does not) and give a "
            f"trained model"
        )
    check_finite(run_inputs.model)
    given = Snapshot(run_inputs.model)
    traced = trace(run_inputs.model, run_inputs.example, options=job.space)
    verified = verify(run_inputs.model, traced, seed=job.seed)
    fingerprints = {
        "model code": traced.code_fingerprint,
        "space": verified.space.fingerprint,
        "data": task.fingerprint,
        "weights": weights_fingerprint(run_inputs.model),
    }
    profile = job.metrics.get(LATENCY, {}).get("profile")
    if profile is not None:
        fingerprints["device profile"] = profile_fingerprint(profile)
    origin = origin_of(traced) if verified.space.form == "graph" else None
    family = tuple(
        Prepared(
            replace(run_inputs, job=one),
            verified.network,
            verified.space,
            origin,
            _domain(verified.space, one),
            {"job": job_fingerprint(one), **fingerprints},
            given,
        )
        for one in job.family
    )
    for prepared in family:
        _rehearse(prepared)
    if task.recipe is not None and not task.recipe.plain:
        for inputs, targets in task.calibration_examples(1, seed=0):
            rehearse(task.recipe, verified.network, Batch(inputs, targets), device=task.device)
    if verified.space.form == "graph":
        _check_batches(verified.network, task)
    elif not task.feeds:
        _check_calibration(verified.network, task)
    return family


def check_scoring(prepared: Prepared) -> None:
    """Score a copy of the full network once, before anything is written.

    Raises:
        EvaluationError: it cannot be scored.
        RunError: that changed the caller's model.
    """
    with blame(EvaluationError, "the full network cannot be scored", then="Nothing was written."):
        prepared.run_inputs.task.compared_with(prepared.network).score(prepared.network, limit=1)
    prepared.check_given()


def job_fingerprint(job: Job) -> str:
    """A hash of every option of a job but its secrets, which may change."""
    return _digest(json.dumps(masked(job.model_dump(mode="json"), references=False), sort_keys=True))


def same_job(recorded: object, job: Job, *, job_format: int = JOB_FORMAT) -> bool:
    """Whether a fingerprint is that of a job, also one made when secrets were part of it, or stopping was not."""
    if job_format == 1:
        job = job.model_copy(update={"search": job.search.model_copy(update=NEVER.model_dump())})
    return recorded in (job_fingerprint(job), _digest(json.dumps(job.model_dump(mode="json"), sort_keys=True)))


def _domain(space: SearchSpace, job: Job) -> BudgetedSpace:
    constraints: Mapping[str, Any] = job.constraints
    domain = BudgetedSpace(space, constraints, metrics=job.metrics)
    if not domain.budget.binds:
        raise BudgetError(f"budget {domain.budget} cuts nothing: the full network keeps it; give a limit below 100%")
    return domain


def weights_fingerprint(model: nn.Module) -> str:
    """A hash of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _check_parts(job: Job) -> None:
    """Every name and the names of all settings; their values show when the parts are built (see `_rehearse`)."""
    check_evaluator(job.search.evaluator.name, job.search.evaluator.settings)
    ChosenCriterion.of(job.search.criterion)
    for chosen in (job.search.inherit, job.verdict.inherit or ()):
        Chain(chosen)
    for allocation in job.search.allocations:
        bind(ALLOCATIONS, allocation.name, allocation.settings)
        if (criterion := criterion_for(allocation)) is not None:
            ChosenCriterion.of(criterion)
    for protocol in job.verdict.protocols:
        _try_protocol(protocol, job)
    check_recipe(job.training)
    for callback in job.callbacks:
        make_callback(callback)


def _try_protocol(options: PartOptions, job: Job) -> None:
    protocol = make_protocol(options)
    failing = blame(ConfigError, f"protocol {options.label!r} fails", then="Correct its settings or its code.")
    with failing:
        epochs = protocol.epochs(job.training.epochs, job.verdict.fine_tune_epochs, 2.0)
        lr = protocol.lr(job.training.lr)
    if not isinstance(epochs, Integral) or epochs < 0 or not isinstance(lr, Real) or not 0 < lr < math.inf:
        raise ConfigError(
            f"protocol {options.label!r} gives {epochs!r} epochs at the learning rate {lr!r}; it must give a whole "
            f"number of at least 0, and a number above 0. Correct its settings or its code"
        )


def _rehearse(prepared: Prepared) -> None:
    """Build from the network as it is what the run will build from the trained one, so that it cannot fail late."""
    base, search = prepared.network, prepared.run_inputs.job.search
    scores = prepared.scores(base, batches=1)
    by_criterion = partial(_scored_by, prepared, base)
    prepared.plan(scores, inputs=rule_inputs(prepared.space, base, by_criterion))
    with _built("controller", search.controller.name, search.controller.settings):
        prepared.controller(scores).ask(1)
    with _built("evaluator", search.evaluator.name, search.evaluator.settings):
        factory = prepared.factory(base, scores)
        prepared.evaluator(factory)
    if prepared.run_inputs.job.verdict.inherit is not None:
        factory.heirs("training")
    if search.storage is not None:
        open_storage(search.storage, Path())


def _scored_by(prepared: Prepared, base: nn.Module, criterion: NamedPart) -> list[FloatArray]:
    return prepared.scores(base, batches=1, criterion=criterion)


def _check_batches(network: nn.Module, task: Task) -> None:
    """Run a graph on batches of the task, of two sizes: it may hold on to the batch size of its example.

    A task of the user's own functions feeds networks by itself and is tried as a whole; its data go through batch norms
    only.
    """
    feeds = task.feeds or any(isinstance(m, _BatchNorm) for m in network.modules())
    batches = task.calibration_batches(1, seed=0) if feeds else []
    trial = copy.deepcopy(network).to(task.device).eval()
    for inputs in (part for batch in batches for part in (batch, batch.first(len(batch) - 1)) if len(part)):
        try:
            with untouched(), torch.no_grad():
                inputs.outputs(trial)
        except Exception as error:
            raise ConfigError(
                f"parts of this model can only be cut as its traced graph, and that does not run on a batch of "
                f"{len(inputs)} training inputs ({type(error).__name__}: {str(error).partition(chr(10))[0]}). Let "
                f"forward take the batch size from its inputs (x.shape[0], or -1 in a view) and trace with an example "
                f"like the data, or exclude the layers that need the graph (space option exclude)"
            ) from error


def _check_calibration(network: nn.Module, task: Task) -> None:
    """Recalibrate as after each training, so that no training is lost to data that the network cannot take."""
    with blame(
        ConfigError,
        "the batch norms cannot be recalibrated on data: its batches do not run through the model",
        then="Give batches that start with the model's input, or leave data out to go without recalibration.",
    ):
        recalibrate_batch_norm(copy.deepcopy(network), task.calibration_inputs(1, seed=0), device=task.device)


def _built(kind: str, name: str, settings: Mapping[str, Any]) -> AbstractContextManager[None]:
    """Inside, whatever a setting of a wrong type does to a part becomes a message."""
    return blame(ConfigError, f"{kind} {name!r} fails with settings {dict(settings)}", then="Correct its settings.")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
