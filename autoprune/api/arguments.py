"""What a search is called with: one list of arguments, which `search` and `sweep` show as their own."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ParamSpec, TypeAlias, TypeVar, final

from torch import nn

from autoprune.api.space import space_options
from autoprune.config.job import DEFAULT_CRITERION, Job, TaskOptions, VerdictOptions
from autoprune.config.space import SpaceOptions
from autoprune.config.sparsity import SparsityOptions
from autoprune.config.stopping import EarlyStopping, StoppingOptions
from autoprune.config.training import Recipe
from autoprune.config.validation import validated
from autoprune.cost.budget.limits import Bound
from autoprune.cost.latency.device_profile import DeviceProfile
from autoprune.cost.pricing import MetricSettings
from autoprune.data import read_data
from autoprune.data.unlabelled import has_targets
from autoprune.errors import ConfigError
from autoprune.export.architecture import PYTHON_MODEL
from autoprune.importance.given import named_criterion
from autoprune.measures.base import make_measure
from autoprune.pipeline.inputs import task_of
from autoprune.pipeline.prepared import RunInputs
from autoprune.progress.base import Mode
from autoprune.progress.callback_list import GivenCallback, by_name_and_ready
from autoprune.space.tracing.program import Example
from autoprune.tasks.base import Task

P = ParamSpec("P")
R = TypeVar("R")

Bounds: TypeAlias = Bound | Sequence[Bound]
"""What one search, or each of a family, may cost."""


@final
@dataclass(frozen=True, eq=False)
class SearchArguments:
    """What a search is called with.

    Args:
        model: the full network; only read.
        example_input: a tensor, a tuple of positional inputs, or a mapping of keyword inputs; a batch of 1 gives costs
            per image.
        constraints: metric -> upper limit, `"50%"` of the full model, a number, `"40M"`, or a range
            `{"min": "45%", "max": "50%"}`; several at once. For `sweep` also a list of limits, `["75%", "50%", "25%"]`.
        metrics: metric -> its settings, for example `{"latency_ms": {"profile": "cpu.json"}}`.
        data: for classification: a data set's name, `module:function`, `DataSplits`, or train, validation and
            optionally test as a tuple or mapping of data sets or loaders; for other tasks likewise, with targets as
            these need them. Without labels also one loader, data set or tensor of inputs. With `score_func`: training
            data for batch norm recalibration (optional).
        task: what networks are for: a name ("segmentation", …), {"name": …, "settings": {…}, "measure": …}, or an
            object of your own subclass of `autoprune.tasks.base.Task`. None: classification, or, with a measure that
            needs no labels and data that have none, unlabelled.
        measure: what scores count, a name or {"name": …, "settings": {…}}: "accuracy", "loss", "divergence", …; None:
            what the task counts by itself.
        score_func: model -> score, higher is better, in place of classification accuracy.
        train_func: (model, epochs, seed), trains in place; needed for the verdict when `score_func` is given.
        test_func: like `score_func`, on data the search never saw, for the verdict.
        trained: the weights of `model` are trained; False trains a copy first.
        space: width choices and exclusions.
        controller: name, or {"name": …, "settings": {…}}.
        evaluator: name, or {"name": …, "settings": {…}}.
        criterion: ranks channels inside a group: name, {"name": …, "settings": {…}}, or a function of your own
            (evidence, generator) -> scores, see `autoprune.importance`.
        inherit: what is done to the weights of cut networks before they are scored, in order: names, or mappings.
        allocations: one-shot rules that are scored first, each a name or {"name": …, "settings": {…}, "criterion": …}.
        sparsity: trainings that find widths, each compared with uniform: names, or a mapping of `methods`, `epochs`,
            `lr_share` and `inherits`; None: none.
        trials: proposals of the controller.
        time_budget: of the whole search, over all resumptions, in seconds or as "90s", "10min", "2h"; past it nothing
            new is proposed, and everything that follows is of the trials so far.
        early_stopping: "asha" or "hyperband" stops proposals that lag behind, of evaluators that train; "none" stops
            nothing. None: as the run began, for a new one "none".
        time_limit: of one evaluation, in seconds or as "90s", "10min", "2h"; past it the trial has failed. On ray.
        memory_limit: of each worker, for example "4GB"; past it the trial has failed. On ray.
        training: epochs, lr, batch_size, … of base and final networks.
        verdict: protocols (each a name or {"name": …, …}), seeds, fine_tune_epochs, …; `{"seeds": 0}` skips it.
        seed: of everything random.
        device: "auto", "cpu", "cuda" or "cuda:N".
        threads: CPU threads while the search runs; None leaves what is set.
        run_dir: where everything is written; a free directory below `runs/` by default.
        resume: go on with what is in `run_dir`. The other arguments must be its own, but for trials, time_budget and
            the seeds, protocols and fine_tune_epochs of the verdict, with which a run that has ended goes on, too; with
            other constraints or another controller a run beside it begins, on its base network and scores.
        storage: Optuna storage URL of the ledger; a journal file in the run directory by default.
        engine: "local", "ray", or {"name": "ray", "address": …, "workers": …, …}; a run may be resumed on another one.
        callbacks: told what happens: names, {"name": …, "settings": {…}}, or objects of your own subclass of
            `autoprune.progress.callbacks.Callback`; they change no trial.
        progress: "auto", "rich", "plain" or "silent".
    """

    model: nn.Module
    example_input: Example
    _: KW_ONLY
    constraints: Mapping[str, Bounds]
    metrics: MetricSettings | None = None
    data: object = None
    task: str | Mapping[str, Any] | Task | None = None
    measure: str | Mapping[str, Any] | None = None
    score_func: Callable[[nn.Module], float] | None = None
    train_func: Callable[[nn.Module, int, int], Any] | None = None
    test_func: Callable[[nn.Module], float] | None = None
    trained: bool = True
    space: SpaceOptions | Mapping[str, Any] | Path | str | None = None
    controller: str | Mapping[str, Any] = "surrogate"
    evaluator: str | Mapping[str, Any] = "inherited"
    criterion: str | Mapping[str, Any] | Callable[..., Any] = DEFAULT_CRITERION
    inherit: Sequence[str | Mapping[str, Any]] | None = None
    allocations: Sequence[str | Mapping[str, Any]] | None = None
    sparsity: SparsityOptions | Sequence[str | Mapping[str, Any]] | Mapping[str, Any] | None = None
    trials: int = 100
    time_budget: float | str | None = None
    early_stopping: EarlyStopping | None = None
    time_limit: float | str | None = None
    memory_limit: int | str | None = None
    training: Recipe | Mapping[str, Any] | None = None
    verdict: VerdictOptions | Mapping[str, Any] | None = None
    seed: int = 0
    device: str = "auto"
    threads: int | None = None
    run_dir: Path | str | None = None
    resume: bool = False
    storage: str | None = None
    engine: str | Mapping[str, Any] = "local"
    callbacks: Sequence[GivenCallback] = ("tensorboard",)
    progress: Mode = "auto"

    def run_inputs(self) -> RunInputs:
        """The job, and what it works on.

        Raises:
            AutopruneError: one of them cannot be used.
        """
        named, ready = by_name_and_ready(self.callbacks)
        job = self._job(named, self._chosen_task())
        task = self._task(job)
        if self.verdict is None and not task.trains:
            job = job.model_copy(update={"verdict": VerdictOptions(seeds=0)})
        return RunInputs(job, self.model, self.trained, self.example_input, task, ready)

    def _job(self, callbacks: list[Any], task: TaskOptions) -> Job:
        given = {
            "seed": self.seed,
            "device": self.device,
            "threads": self.threads,
            "model": {"factory": PYTHON_MODEL},
            "data": {"name": self.data if isinstance(self.data, str) else PYTHON_MODEL},
            "task": task.model_dump(),
            "training": _dump(self.training),
            "space": space_options(self.space).model_dump(),
            "constraints": self.constraints,
            "metrics": _plain_settings(self.metrics or {}),
            "search": {
                "trials": self.trials,
                "controller": self.controller,
                "evaluator": self.evaluator,
                "criterion": named_criterion(self.criterion),
                "inherit": None if self.inherit is None else list(self.inherit),
                **({} if self.allocations is None else {"allocations": list(self.allocations)}),
                "storage": self.storage,
                "time_budget": self.time_budget,
                **{key: given for key in StoppingOptions.model_fields if (given := getattr(self, key)) is not None},
            },
            "sparsity": self.sparsity,
            "verdict": _dump(self.verdict),
            "engine": self.engine,
            "callbacks": callbacks,
        }
        return validated(Job, given, "search")

    def _chosen_task(self) -> TaskOptions:
        """The task as a job names it; of a ready one, or of functions, nothing but that they were given."""
        own = self.score_func is not None or isinstance(self.task, Task)
        unused = [name for name in ("train_func", "test_func") if getattr(self, name) is not None]
        if unused and self.score_func is None and (self.data is not None or self.task is not None):
            raise ConfigError(f"{unused[0]} is for a search by score_func, and there is none: give it, or leave it out")
        if isinstance(self.task, Task) and self.data is not None:
            raise ConfigError("a task object has its own data; leave data out, or give the task by its name")
        if own and (self.measure is not None or (self.score_func is not None and self.task is not None)):
            told = "score_func" if self.score_func is not None else "a task object"
            raise ConfigError(f"{told} says by itself what scores count; leave measure and other tasks out")
        if own:
            return TaskOptions()
        given = self.task if isinstance(self.task, str | Mapping) else {}
        named: dict[str, Any] = {"name": given} if isinstance(given, str) else dict(given)
        if self.measure is not None:
            named["measure"] = self.measure
        chosen = validated(TaskOptions, named, "task")
        if self.task is None and chosen.measure is not None and self.data is not None:
            labelled = make_measure(chosen.measure).needs_targets or has_targets(self._read)
            return chosen if labelled else chosen.model_copy(update={"name": "unlabelled"})
        return chosen

    @cached_property
    def _read(self) -> object:
        """The data; what a name stands for."""
        return read_data(self.data) if isinstance(self.data, str) else self.data

    def _task(self, job: Job) -> Task:
        if isinstance(self.task, Task):
            return self.task
        if self.score_func is None:
            name = self.data if isinstance(self.data, str) else "user data"
            return task_of(job, self.model, self._read, data_name=name)
        functions = {"score": self.score_func, "train": self.train_func, "test": self.test_func}
        return task_of(job, self.model, self._read, functions=functions)


def called_with(
    arguments: Callable[P, SearchArguments],
) -> Callable[[Callable[[SearchArguments], R]], Callable[P, R]]:
    """Let a function of `SearchArguments` be called with what they are made of; signature and help show them.

    Args:
        arguments: the class itself; type checkers see its parameters in the function's place.
    """
    shown = inspect.signature(arguments, eval_str=False)
    listed = (inspect.getdoc(arguments) or "").partition("\n\n")[2]

    def decorated(work: Callable[[SearchArguments], R]) -> Callable[P, R]:
        returned = inspect.signature(work).return_annotation

        @functools.wraps(work)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                shown.bind(*args, **kwargs)
            except TypeError as error:
                raise TypeError(f"{work.__name__}() {error}") from None
            return work(arguments(*args, **kwargs))

        summary, _, rest = (inspect.getdoc(work) or "").partition("\n\nReturns:")
        call.__doc__ = f"{summary}\n\n{listed}\n\nReturns:{rest}"
        call.__signature__ = shown.replace(return_annotation=returned)  # type: ignore[attr-defined]
        call.__annotations__ = {**{p.name: p.annotation for p in shown.parameters.values()}, "return": returned}
        return call

    return decorated


def _plain_settings(metrics: MetricSettings) -> dict[str, dict[str, Any]]:
    """Settings that a job file can hold: a device profile as its content."""
    return {
        metric: {name: given.to_json() if isinstance(given, DeviceProfile) else given for name, given in own.items()}
        for metric, own in metrics.items()
    }


def _dump(options: Recipe | VerdictOptions | Mapping[str, Any] | None) -> dict[str, Any]:
    return options.model_dump() if isinstance(options, Recipe | VerdictOptions) else dict(options or {})
