"""Whether all that a run will build can be built, and runs on its data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import partial
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from autoprune.allocation import ALLOCATIONS
from autoprune.config.job import Job
from autoprune.config.parts import NamedPart, PartOptions
from autoprune.config.settings import bind
from autoprune.controllers import check_controller
from autoprune.errors import ConfigError, EvaluationError, blame
from autoprune.evaluators.making import check_evaluator, kind_of, rungs_of
from autoprune.importance.scoring import ChosenCriterion
from autoprune.inherit.base import Chain
from autoprune.inherit.bn_recalibration import recalibrate_batch_norm
from autoprune.pipeline.prepared import Prepared, RunInputs
from autoprune.pipeline.rules import rule_inputs
from autoprune.progress.callback_list import make_callback
from autoprune.randomness import untouched
from autoprune.space.copying import copy_network
from autoprune.space.groups import FloatArray
from autoprune.sparsity.base import make_sparsity
from autoprune.sparsity.training import SparsityPiece, check_fits
from autoprune.tasks.base import Task
from autoprune.training.protocols import make_protocol, rewound_to
from autoprune.training.recipe import check_recipe, rehearse
from autoprune.trials.ledger import open_storage
from autoprune.verdict.rules import criterion_for
from autoprune.verdict.teaching import check_teaching


def check_scoring(prepared: Prepared) -> None:
    """Score a copy of the full network once, before anything is written.

    Raises:
        EvaluationError: it cannot be scored.
        RunError: that changed the caller's model.
    """
    with blame(EvaluationError, "the full network cannot be scored", then="Nothing was written."):
        prepared.run_inputs.task.compared_with(prepared.network).score(prepared.network, limit=1)
    prepared.check_given()


def check_parts(job: Job) -> None:
    """Every name and the names of all settings; their values show when the parts are built (see `rehearse_parts`)."""
    check_controller(job.search.controller.name, job.search.controller.settings)
    check_evaluator(job.search.evaluator.name, job.search.evaluator.settings)
    _check_rungs(job)
    ChosenCriterion.of(job.search.criterion)
    for chosen in (job.search.inherit or (), job.verdict.inherit or ()):
        Chain(chosen)
    for allocation in job.search.allocations:
        bind(ALLOCATIONS, allocation.name, allocation.settings)
        if (criterion := criterion_for(allocation)) is not None:
            ChosenCriterion.of(criterion)
    for protocol in job.verdict.protocols:
        _try_protocol(protocol, job)
    check_recipe(job.training)
    for method in job.sparsity.methods:
        make_sparsity(method)
    for callback in job.callbacks:
        make_callback(callback)


def _check_rungs(job: Job) -> None:
    """Candidates are stopped by one rule; raises ConfigError."""
    stopping, evaluator = job.search.early_stopping, job.search.evaluator
    if stopping != "none" and rungs_of(evaluator.name, evaluator.settings) is not None:
        raise ConfigError(
            f"search.early_stopping is {stopping}, and the evaluator {evaluator.name!r} stops candidates at rungs of "
            f"its own; leave early_stopping at none, its setting keep says how many go on"
        )


def check_trainings(run_inputs: RunInputs) -> None:
    """Check that the task can train where the job does; raises ConfigError where it cannot."""
    job, task = run_inputs.job, run_inputs.task
    evaluator_trains = kind_of(job.search.evaluator.name, job.search.evaluator.settings) == "training"
    verdict_trains = job.verdict.seeds and any(make_protocol(one).trains for one in job.verdict.protocols)
    if not task.trains and (not run_inputs.trained or verdict_trains or evaluator_trains):
        raise ConfigError(
            f"this job trains networks (the base network, the evaluator or the verdict), but {task.why_untrained}, or "
            f"set verdict seeds to 0 or its protocols to [no_training], choose an evaluator that does not train (the "
            f"default does not) and give a trained model"
        )
    if job.sparsity.methods and (not task.trains or not task.takes_terms or task.recipe is None):
        raise ConfigError(
            f"sparsity names {job.sparsity.methods[0].label!r}, which takes part in the steps of a training, and this "
            f"task trains in a way of its own, or not at all; leave sparsity out"
        )
    if job.verdict.seeds:
        check_teaching(job.verdict.protocols, task)
        for protocol in job.verdict.protocols:
            _check_told(protocol, task)


def _check_told(protocol: PartOptions, task: Task) -> None:
    """A protocol asks for nothing that the task's training cannot be told; raises ConfigError."""
    if not task.cuts_in_training and make_protocol(protocol).steps:
        raise ConfigError(
            f"protocol {protocol.label!r} cuts networks while they train, which this task cannot: it trains in a way "
            f"of its own. Choose fine_tune"
        )
    if not task.takes_lr and "lr_share" in protocol.settings:
        raise ConfigError(
            f"protocol {protocol.label!r}: lr_share cannot be used: train_func trains with a learning rate of its own "
            f"and is told none; leave it out"
        )


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
    if protocol.rewind and not rewound_to(protocol.rewind, int(epochs)):
        raise ConfigError(
            f"protocol {options.label!r} goes back to weights of early training, and a training of {epochs} epoch has "
            f"none before its end; set training.epochs to 2 or more, or rewind to 0"
        )


def rehearse_parts(prepared: Prepared) -> None:
    """Build from the network as it is what the run will build from the trained one, so that it cannot fail late."""
    base, search = prepared.network, prepared.run_inputs.job.search
    _check_cuts(prepared)
    scores = prepared.scores(base, batches=1)
    by_criterion = partial(_scored_by, prepared, base)
    prepared.plan(scores, inputs=rule_inputs(prepared.space, base, by_criterion))
    with _built("controller", search.controller.name, search.controller.settings):
        prepared.controller(scores).ask(1)
    with _built("evaluator", search.evaluator.name, search.evaluator.settings):
        factory = prepared.factory(base, scores)
        prepared.evaluator(factory)
    for method in prepared.run_inputs.job.sparsity.methods:
        check_fits(factory, SparsityPiece(method, 1, 0.01, 0, prepared.domain.uniform()))
    if prepared.run_inputs.job.verdict.inherit is not None:
        factory.heirs("training")
    if search.storage is not None:
        open_storage(search.storage, Path())


def _check_cuts(prepared: Prepared) -> None:
    """Layers become two or get their bits, and images their size, before a training, not in it; raises ConfigError."""
    space = prepared.space
    what = "a rank is" if space.factors else "bits are" if space.bits else "a resolution is"
    chosen_before = space.factors or space.bits or space.resolution
    for options in prepared.run_inputs.job.verdict.protocols if chosen_before else ():
        protocol = make_protocol(options)
        if protocol.steps or protocol.rounds:
            raise ConfigError(
                f"protocol {options.label!r} cuts networks while they train, and {what} chosen before: choose "
                f"fine_tune or scratch_e"
            )


def _scored_by(prepared: Prepared, base: nn.Module, criterion: NamedPart) -> list[FloatArray]:
    return prepared.scores(base, batches=1, criterion=criterion)


def check_data(network: nn.Module, task: Task, *, form: str) -> None:
    """Run the network on data as trainings, candidates and recalibration will, so that none of it fails late.

    Args:
        network: the full network in the form of its space; only read.
        task: has the data.
        form: of the space, "module" or "graph".

    Raises:
        ConfigError: the network does not run on them.
    """
    if task.recipe is not None and not task.recipe.plain:
        for batch in task.calibration_batches(1, seed=0):
            rehearse(task.recipe, network, batch, device=task.device)
    if form == "graph":
        _check_batches(network, task)
    elif not task.feeds:
        _check_calibration(network, task)


def _check_batches(network: nn.Module, task: Task) -> None:
    """Run a graph on batches of the task, of two sizes: it may hold on to the batch size of its example.

    A task of the user's own functions feeds networks by itself and is tried as a whole; its data go through batch norms
    only.
    """
    feeds = task.feeds or any(isinstance(m, _BatchNorm) for m in network.modules())
    batches = task.calibration_batches(1, seed=0) if feeds else []
    trial = copy_network(network).to(task.device).eval()
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
        recalibrate_batch_norm(copy_network(network), task.calibration_inputs(1, seed=0), device=task.device)


def _built(kind: str, name: str, settings: Mapping[str, Any]) -> AbstractContextManager[None]:
    """Inside, whatever a setting of a wrong type does to a part becomes a message."""
    return blame(ConfigError, f"{kind} {name!r} fails with settings {dict(settings)}", then="Correct its settings.")
