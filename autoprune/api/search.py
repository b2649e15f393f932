"""The Python front door: `search`, `resume`, what they return, and `trace`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypedDict, Unpack, overload

from torch import nn

from autoprune.api.result import SearchResult
from autoprune.api.space import Space, space_options, trace
from autoprune.config.engine import EngineOptions
from autoprune.config.job import Job, TrainingOptions, VerdictOptions
from autoprune.config.space import SpaceOptions
from autoprune.config.validation import validated
from autoprune.cost.budget.limits import Bound
from autoprune.cost.latency.device_profile import DeviceProfile
from autoprune.cost.pricing import MetricSettings
from autoprune.data import load_data, splits_from
from autoprune.errors import ConfigError
from autoprune.export.architecture import PYTHON_MODEL
from autoprune.files import free_directory
from autoprune.pipeline import driver
from autoprune.pipeline.inputs import check_outputs, pick_device
from autoprune.pipeline.prepare import RunInputs
from autoprune.progress.callback_list import GivenCallback, by_name_and_ready
from autoprune.progress.modes import Mode
from autoprune.randomness import untouched
from autoprune.space.tracing.program import Example
from autoprune.tasks.base import Task
from autoprune.tasks.callable import CallableTask
from autoprune.tasks.classification import ClassificationTask
from autoprune.training.recipe import Recipe

__all__ = ["SearchResult", "Space", "resume", "search", "trace"]

Bounds: TypeAlias = Bound | Sequence[Bound]
"""What one search, or each of a family, may cost."""


class SearchArguments(TypedDict, total=False):
    """The keyword arguments of `search` beside the constraints; said there."""

    metrics: MetricSettings | None
    data: object
    score_func: Callable[[nn.Module], float] | None
    train_func: Callable[[nn.Module, int, int], Any] | None
    test_func: Callable[[nn.Module], float] | None
    trained: bool
    space: SpaceOptions | Mapping[str, Any] | Path | str | None
    controller: str | Mapping[str, Any]
    evaluator: str | Mapping[str, Any]
    criterion: str | Mapping[str, Any]
    trials: int
    training: TrainingOptions | Mapping[str, Any] | None
    verdict: VerdictOptions | Mapping[str, Any] | None
    seed: int
    device: str
    threads: int | None
    run_dir: Path | str | None
    resume: bool
    storage: str | None
    progress: Mode
    engine: str | Mapping[str, Any]
    callbacks: Sequence[GivenCallback]


@overload
def search(
    model: nn.Module,
    example_input: Example,
    *,
    constraints: Mapping[str, Bound],
    **arguments: Unpack[SearchArguments],
) -> SearchResult: ...


@overload
def search(
    model: nn.Module,
    example_input: Example,
    *,
    constraints: Mapping[str, Bounds],
    **arguments: Unpack[SearchArguments],
) -> SearchResult | tuple[SearchResult, ...]: ...


@untouched()
def search(
    model: nn.Module,
    example_input: Example,
    *,
    constraints: Mapping[str, Bounds],
    metrics: MetricSettings | None = None,
    data: object = None,
    score_func: Callable[[nn.Module], float] | None = None,
    train_func: Callable[[nn.Module, int, int], Any] | None = None,
    test_func: Callable[[nn.Module], float] | None = None,
    trained: bool = True,
    space: SpaceOptions | Mapping[str, Any] | Path | str | None = None,
    controller: str | Mapping[str, Any] = "surrogate",
    evaluator: str | Mapping[str, Any] = "inherited",
    criterion: str | Mapping[str, Any] = "l2",
    trials: int = 100,
    training: TrainingOptions | Mapping[str, Any] | None = None,
    verdict: VerdictOptions | Mapping[str, Any] | None = None,
    seed: int = 0,
    device: str = "auto",
    threads: int | None = None,
    run_dir: Path | str | None = None,
    resume: bool = False,
    storage: str | None = None,
    engine: str | Mapping[str, Any] = "local",
    callbacks: Sequence[GivenCallback] = ("tensorboard",),
    progress: Mode = "auto",
) -> SearchResult | tuple[SearchResult, ...]:
    """Search the widths of a model under a budget and compare the winner with uniform pruning.

    Args:
        model: the full network; only read.
        example_input: a tensor, a tuple of positional inputs, or a mapping of keyword inputs; a batch of 1 gives costs
            per image.
        constraints: metric -> upper limit, `"50%"` of the full model, a number, `"40M"`, or a range
            `{"min": "45%", "max": "50%"}`; several at once. With a list of limits, `["75%", "50%", "25%"]`, a family
            of searches that share the trace, the base network and every score.
        metrics: metric -> its settings, for example `{"latency_ms": {"profile": "cpu.json"}}`.
        data: for classification: a data set's name, `module:function`, `DataSplits`, or train, validation and
            optionally test as a tuple or mapping of data sets or loaders. With `score_func`: training data for batch
            norm recalibration (optional).
        score_func: model -> score, higher is better, in place of classification accuracy.
        train_func: (model, epochs, seed), trains in place; needed for the verdict when `score_func` is given.
        test_func: like `score_func`, on data the search never saw, for the verdict.
        trained: the weights of `model` are trained; False trains a copy first.
        space: width choices and exclusions.
        controller: name, or {"name": …, "settings": {…}}.
        evaluator: name, or {"name": …, "settings": {…}}.
        criterion: ranks channels inside a group: name, or {"name": …, "settings": {…}}.
        trials: proposals of the controller.
        training: epochs, lr, batch_size, … of base and final networks.
        verdict: protocols (each a name or {"name": …, …}), seeds, fine_tune_epochs, …; `{"seeds": 0}` skips it.
        seed: of everything random.
        device: "auto", "cpu", "cuda" or "cuda:N".
        threads: CPU threads while the search runs; None leaves what is set.
        run_dir: where everything is written; a free directory below `runs/` by default.
        resume: go on with the run, or the family, in `run_dir` (the other arguments must be its own).
        storage: Optuna storage URL of the ledger; a journal file in the run directory by default.
        engine: "local", "ray", or {"name": "ray", "address": …, "workers": …, …}; a run may be resumed on another one.
        callbacks: told what happens: names, {"name": …, "settings": {…}}, or objects of your own subclass of
            `autoprune.progress.callbacks.Callback`; they change no trial.
        progress: "auto", "rich", "plain" or "silent".

    Returns:
        What the search found; a tuple of that, one for each budget in their order, where limits are lists.

    Raises:
        AutopruneError: one clear message; nothing is written before the job is known to be usable.
    """
    named, ready = by_name_and_ready(callbacks)
    skip_verdict = score_func is not None and train_func is None and verdict is None
    given = {
        "seed": seed,
        "device": device,
        "threads": threads,
        "model": {"factory": PYTHON_MODEL},
        "data": {"name": data if isinstance(data, str) else PYTHON_MODEL},
        "training": _dump(training),
        "space": space_options(space).model_dump(),
        "constraints": constraints,
        "metrics": _plain_settings(metrics or {}),
        "search": {
            "trials": trials,
            "controller": controller,
            "evaluator": evaluator,
            "criterion": criterion,
            "storage": storage,
        },
        "verdict": {"seeds": 0} if skip_verdict else _dump(verdict),
        "engine": engine,
        "callbacks": named,
    }
    job = validated(Job, given, "search")
    chosen_device = pick_device(device)
    task: Task
    if score_func is not None:
        source = load_data(data) if isinstance(data, str) else data
        task = CallableTask(score_func, train_func, test_func=test_func, data=source, device=chosen_device)
    elif data is not None:
        splits = load_data(data) if isinstance(data, str) else splits_from(data)
        classes = check_outputs(model, splits)
        recipe = Recipe(**job.training.model_dump())
        task = ClassificationTask(splits, recipe, device=chosen_device, classes=classes)
    else:
        raise ConfigError(
            'search needs something to score with: data="cifar10", your data sets as '
            "data={'train': …, 'validation': …}, or score_func(model) -> float"
        )
    run_inputs = RunInputs(job, model, trained, example_input, task, ready)
    path = Path(run_dir) if run_dir is not None else None
    if resume and path is None:
        raise ConfigError("resume=True needs run_dir, the directory of the run to go on with")
    path = path or free_directory(driver.RUNS, job.name)
    if len(job.family) > 1:
        family = (driver.resume_family if resume else driver.start_family)(run_inputs, path, progress=progress)
        return tuple(SearchResult(record, model) for record in family)
    return SearchResult((driver.resume if resume else driver.run)(run_inputs, path, progress=progress), model)


@untouched()
def resume(
    run_dir: Path | str, *, progress: Mode = "auto", engine: str | Mapping[str, Any] | None = None
) -> SearchResult:
    """Go on with a run that was started from a job file; for a run started by `search`, call it with `resume=True`.

    Args:
        run_dir: of the run.
        progress: "auto", "rich", "plain" or "silent".
        engine: another one than it began on, as for `search`.

    Raises:
        RunError: there is no such run, or what it was started with has changed.
    """
    options = None if engine is None else validated(EngineOptions, engine, "engine")
    return SearchResult(driver.resume_job(Path(run_dir), progress=progress, engine=options), None)


def _plain_settings(metrics: MetricSettings) -> dict[str, dict[str, Any]]:
    """Settings that a job file can hold: a device profile as its content."""
    return {
        metric: {name: given.to_json() if isinstance(given, DeviceProfile) else given for name, given in own.items()}
        for metric, own in metrics.items()
    }


def _dump(options: TrainingOptions | VerdictOptions | Mapping[str, Any] | None) -> dict[str, Any]:
    return options.model_dump() if isinstance(options, TrainingOptions | VerdictOptions) else dict(options or {})
