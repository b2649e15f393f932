"""The Python front door: `search`, `resume`, `trace`, and what they return."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, final

import numpy as np
from torch import nn

from autoprune.config import (
    Job,
    SpaceOptions,
    TrainingOptions,
    VerdictOptions,
    load_space_options,
    validated,
)
from autoprune.controllers.base import Trial
from autoprune.cost import METRICS
from autoprune.cost.polynomial import CostFunction
from autoprune.data import load_data, splits_from
from autoprune.errors import ConfigError
from autoprune.export.architecture import PYTHON_MODEL, load
from autoprune.importance.members import rank_channels
from autoprune.pipeline import driver
from autoprune.pipeline.ingredients import check_outputs, pick_device
from autoprune.pipeline.phases import write_reports
from autoprune.pipeline.prepare import Ingredients
from autoprune.search.progress import Mode
from autoprune.search.run_directory import read_json
from autoprune.space.groups import FrozenPart, SearchSpace, WidthGroup, Widths
from autoprune.space.origin import InForm, full_network, in_form
from autoprune.space.program import Example
from autoprune.space.slicing import slice_model
from autoprune.space.trace import trace as trace_graph
from autoprune.space.verify import verify as verify_space
from autoprune.training.callable_task import CallableTask
from autoprune.training.loop import Recipe
from autoprune.training.task import ClassificationTask, Task
from autoprune.verdict.record import Arm, RunRecord, Verdict


@final
@dataclass(frozen=True, eq=False)
class Space:
    """A traced model's width groups: what can be cut, what it costs, and the networks themselves."""

    search_space: SearchSpace
    _in_form: InForm = field(default=lambda model: model, repr=False)

    @property
    def groups(self) -> tuple[WidthGroup, ...]:
        """Width groups, each with `.name`, `.width`, `.choices`, `.members` and `.residual`."""
        return self.search_space.groups

    @property
    def frozen(self) -> tuple[FrozenPart, ...]:
        """What stays as it is, each with `.name`, `.channels` and `.reason`."""
        return self.search_space.frozen

    @property
    def full(self) -> Widths:
        """The unpruned widths."""
        return self.search_space.full

    def uniform(self, ratio: float) -> Widths:
        """The member nearest to this ratio in every group; raises SpaceError outside (0, 1]."""
        return self.search_space.uniform(ratio)

    def nearest(self, widths: Iterable[float]) -> Widths:
        """The member of the space nearest to these numbers; raises SpaceError for a wrong count."""
        return self.search_space.nearest(widths)

    def cost(self, widths: Iterable[int]) -> dict[str, int | float]:
        """Metric -> cost of a member of the space, in closed form.

        `flops` counts one multiply-add as one FLOP, for one pass of the example input.

        Raises:
            SpaceError: the widths are not in the space; names the group.
        """
        row = np.array([self.search_space.check(widths)])
        costs = {name: float(cost(row)[0]) for name, cost in self._metrics.items()}
        return {name: int(cost) if cost.is_integer() else cost for name, cost in costs.items()}

    @cached_property
    def _metrics(self) -> dict[str, CostFunction]:
        return {name: METRICS.get(name)(self.search_space) for name in METRICS.names()}

    def slice(self, model: nn.Module, widths: Iterable[int], *, criterion: str = "l1", seed: int = 0) -> nn.Module:
        """A new network of these widths with inherited weights, the best channels by `criterion`; `model` is only read.

        It is of the model's class, or runs the traced graph where only that can be cut (`search_space.form`): with
        inputs as in the example, any batch size, and trainable as ever.

        Args:
            model: the network that was traced, with any weights.
            widths: member of the space.
            criterion: ranks channels inside a group.
            seed: of the criterion, where it is random.

        Raises:
            SpaceError: the widths are not in the space, or `model` is not the one that was traced.
        """
        ranking = rank_channels(model, self.search_space, criterion, seed=seed)
        return slice_model(self._in_form(model), self.search_space, self.search_space.check(widths), ranking)


@final
@dataclass(frozen=True, eq=False)
class SearchResult:
    """What a search found; everything is also in `directory`."""

    record: RunRecord
    _full_model: nn.Module | None

    @cached_property
    def model(self) -> nn.Module:
        """The winner with its final weights, in evaluation mode, on CPU."""
        return load(self.directory / "export", model=self._full_model)

    @property
    def directory(self) -> Path:
        """The run directory."""
        return self.record.directory

    @property
    def widths(self) -> Widths:
        """The winner's widths, in the order of the space's groups."""
        return self.record.winner.widths

    @property
    def trials(self) -> tuple[Trial, ...]:
        """Every scored proposal, baselines included."""
        return self.record.trials

    @property
    def baselines(self) -> tuple[Arm, ...]:
        """Uniform and random networks at the same cost."""
        return self.record.arms[1:]

    @property
    def verdict(self) -> Verdict | None:
        """The comparison with uniform pruning; None where no final networks were trained."""
        return self.record.verdict

    @property
    def space(self) -> Space:
        """What was searched."""
        origin = read_json(self.directory / "space.json").get("origin")
        return Space(self.record.space, partial(full_network, space=self.record.space, origin=origin))

    def report(self) -> Path:
        """Write report.html and report.md anew and return the path of the page."""
        write_reports(self.record)
        return self.directory / "report.html"

    def save(self, folder: Path | str) -> Path:
        """Copy architecture.yaml, space.json and model.safetensors to a folder; `autoprune.load(folder)` reads it."""
        return driver.export_run(self.directory, Path(folder))


def trace(
    model: nn.Module,
    example_input: Example,
    *,
    options: SpaceOptions | Mapping[str, Any] | Path | str | None = None,
    verify: bool = True,
) -> Space:
    """Find what can be cut in a model; the model is only read.

    Args:
        model: any module that `torch.export` or `make_fx` can trace.
        example_input: a tensor, a tuple of positional inputs, or a mapping of keyword inputs; a batch of 1 gives costs
            per image.
        options: width choices and exclusions: `SpaceOptions`, a mapping, or a file of `search_spaces/`.
        verify: build random cuts and compare them with the masked model; groups that fail are frozen.

    Raises:
        TraceError: the model cannot be traced.
        SpaceError: nothing can be pruned.
    """
    traced = trace_graph(model, example_input, options=_space_options(options))
    if not verify:
        return Space(traced.space)
    verified = verify_space(model, traced)
    return Space(verified.space, in_form(verified))


def search(
    model: nn.Module,
    example_input: Example,
    *,
    constraints: Mapping[str, str | float],
    data: object = None,
    score_func: Callable[[nn.Module], float] | None = None,
    train_func: Callable[[nn.Module, int, int], Any] | None = None,
    test_func: Callable[[nn.Module], float] | None = None,
    trained: bool = True,
    space: SpaceOptions | Mapping[str, Any] | Path | str | None = None,
    controller: str | Mapping[str, Any] = "surrogate",
    evaluator: str | Mapping[str, Any] = "inherited",
    criterion: str = "l2",
    trials: int = 100,
    training: TrainingOptions | Mapping[str, Any] | None = None,
    verdict: VerdictOptions | Mapping[str, Any] | None = None,
    seed: int = 0,
    device: str = "auto",
    threads: int | None = None,
    run_dir: Path | str | None = None,
    resume: bool = False,
    storage: str | None = None,
    progress: Mode = "auto",
) -> SearchResult:
    """Search the widths of a model under a budget and compare the winner with uniform pruning.

    Args:
        model: the full network; only read.
        example_input: a tensor, a tuple of positional inputs, or a mapping of keyword inputs; a batch of 1 gives costs
            per image.
        constraints: metric -> upper limit, `"50%"` of the full model, a number, or `"40M"`; several at once.
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
        criterion: ranks channels inside a group.
        trials: proposals of the controller.
        training: epochs, lr, batch_size, … of base and final networks.
        verdict: protocols, seeds, fine_tune_epochs, …; `{"seeds": 0}` skips it.
        seed: of everything random.
        device: "auto", "cpu", "cuda" or "cuda:N".
        threads: CPU threads while the search runs; None leaves what is set.
        run_dir: where everything is written; a free directory below `runs/` by default.
        resume: go on with the run in `run_dir` (the other arguments must be the run's own).
        storage: Optuna storage URL of the ledger; a journal file in the run directory by default.
        progress: "auto", "rich", "plain" or "silent".

    Raises:
        AutopruneError: one clear message; nothing is written before the job is known to be usable.
    """
    skip_verdict = score_func is not None and train_func is None and verdict is None
    given = {
        "seed": seed,
        "device": device,
        "threads": threads,
        "model": {"factory": PYTHON_MODEL},
        "data": {"name": data if isinstance(data, str) else PYTHON_MODEL},
        "training": _dump(training),
        "space": _space_options(space).model_dump(),
        "constraints": constraints,
        "search": {
            "trials": trials,
            "controller": controller,
            "evaluator": evaluator,
            "criterion": criterion,
            "storage": storage,
        },
        "verdict": {"seeds": 0} if skip_verdict else _dump(verdict),
    }
    job = validated(Job, given, "search")
    chosen_device = pick_device(device)
    task: Task
    if score_func is not None:
        source = load_data(data) if isinstance(data, str) else data
        task = CallableTask(score_func, train_func, test_func=test_func, data=source, device=chosen_device)
    elif data is not None:
        splits = load_data(data) if isinstance(data, str) else splits_from(data)
        check_outputs(model, splits)
        task = ClassificationTask(splits, Recipe(**job.training.model_dump()), device=chosen_device)
    else:
        raise ConfigError(
            'search needs something to score with: data="cifar10", your data sets as '
            "data={'train': …, 'validation': …}, or score_func(model) -> float"
        )
    ingredients = Ingredients(job, model, trained, example_input, task)
    path = Path(run_dir) if run_dir is not None else None
    if not resume:
        return SearchResult(driver.run(ingredients, path, progress=progress), model)
    if path is None:
        raise ConfigError("resume=True needs run_dir, the directory of the run to go on with")
    return SearchResult(driver.resume(ingredients, path, progress=progress), model)


def resume(run_dir: Path | str, *, progress: Mode = "auto") -> SearchResult:
    """Go on with a run that was started from a job file; for a run started by `search`, call it with `resume=True`.

    Raises:
        RunError: there is no such run, or what it was started with has changed.
    """
    return SearchResult(driver.resume_job(Path(run_dir), progress=progress), None)


def _space_options(given: SpaceOptions | Mapping[str, Any] | Path | str | None) -> SpaceOptions:
    if given is None or isinstance(given, SpaceOptions):
        return given or SpaceOptions()
    if isinstance(given, Mapping):
        return validated(SpaceOptions, dict(given), "space")
    return load_space_options(Path(given))


def _dump(options: TrainingOptions | VerdictOptions | Mapping[str, Any] | None) -> dict[str, Any]:
    return options.model_dump() if isinstance(options, TrainingOptions | VerdictOptions) else dict(options or {})
