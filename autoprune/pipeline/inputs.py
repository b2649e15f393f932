"""From a job file to the things it names: model, data, task, example input."""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml
from threadpoolctl import threadpool_limits
from torch import nn

from autoprune.config.environment import is_withheld, variables
from autoprune.config.job import Job, load_job
from autoprune.data import read_data
from autoprune.deprecation import MovedWarning
from autoprune.errors import ConfigError, RunError, UnsetVariableError
from autoprune.export.architecture import PYTHON_MODEL
from autoprune.pipeline.prepared import RunInputs
from autoprune.pipeline.restoring import job_reads
from autoprune.tasks.base import Task, TaskInputs, make_task
from autoprune.trials.run_directory import RunDirectory, check_search
from autoprune.trials.run_files import copy_of, has_begun
from autoprune.zoo import build_model, load_weights


def inputs_of_job(job: Job) -> RunInputs:
    """Build what a job names.

    Raises:
        AutopruneError: a name, an argument, data or weights cannot be used.
    """
    data = read_data(job.data.name, path=job.data.path, arguments=job.data.arguments)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.seed)  # the factory draws the initial weights of the base network
        model = build_model(job.model.factory, job.model.arguments)
    if job.model.weights is not None:
        load_weights(model, job.model.weights)
    task = task_of(job, model, data, data_name=job.data.name)
    trained = job.model.trained or job.model.weights is not None
    return RunInputs(job, model, trained, task.example_input(), task)


def task_of(
    job: Job,
    model: nn.Module,
    data: object,
    *,
    data_name: str = "user data",
    functions: Mapping[str, Any] | None = None,
) -> Task:
    """The task of a job, on its device.

    Args:
        job: names it, its settings and its measure.
        model: the full network; only read.
        data: what the task reads, as the data set or the caller gave it.
        data_name: of the data set.
        functions: the caller's own, by what the task 'callable' calls them; they take the place of the job's task.

    Raises:
        AutopruneError: a name, a setting or the data cannot be used, or the network does not fit them.
    """
    given = TaskInputs(model, data, job.training, pick_device(job.device), data_name=data_name)
    if functions is not None:
        return make_task("callable", functions, given)
    return make_task(job.task.name, job.task.settings, given, measure=job.task.measure)


def job_of_run(directory: Path, changes: Mapping[str, Any] | None = None) -> Job:
    """The job that a run was started with.

    Args:
        directory: of the run, or the family.
        changes: dotted key -> value, in place of what it was started with.

    Raises:
        ConfigError: the changes are not those of a job.
        RunError: no run there, a comparison, or one that was started from Python with objects.
    """
    if has_begun(directory) and not job_reads(directory) and copy_of(directory, "job.yaml") is not None:
        with RunDirectory.reopen(directory) as opened:
            opened.restore()
    if not (directory / "job.yaml").is_file():
        raise RunError(f"{directory} is not a run directory: it holds no job.yaml; give the path the search printed")
    check_search(directory)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MovedWarning)  # nobody is to rewrite the file of a run
            job = load_job(directory / "job.yaml", of_run=True)
    except UnsetVariableError as error:
        raise RunError(f"{directory} cannot be resumed yet: {error}") from None
    except ConfigError as error:
        raise RunError(f"{directory} cannot be resumed: {error}; restore its job.yaml, or start a new run") from error
    if job.model.factory == PYTHON_MODEL:
        raise RunError(
            f"{directory} was started from Python with a model object; go on with it there by the same call: "
            f"{resuming(job, directory)}"
        )
    return load_job(directory / "job.yaml", changes, of_run=True) if changes else job


def resuming(job: Job, path: Path) -> str:
    """How a person goes on with what was started there: by command, or by the call that has the model object."""
    if job.model.factory != PYTHON_MODEL:
        return f"autoprune resume {shlex.quote(str(path))}"
    call = "search" if len(job.family) == 1 else "sweep"
    return f"autoprune.{call}(…, run_dir={str(path)!r}, resume=True)"


def how_to_resume(job: Job) -> tuple[str, ...]:
    """What a run that begins has to tell of the secrets that it does not keep."""
    if job.model.factory == PYTHON_MODEL:  # resumed by the same call, which holds them
        return ()
    return tuple(
        f"the secret in {key} is not kept: set {name} to it to resume the run, or write ${{NAME}} in the job file"
        for name, key in variables(yaml.safe_load(job.text)).items()
        if is_withheld(name)
    )


def pick_device(name: str) -> torch.device:
    """Return the device of this name, "auto" for the first GPU or the CPU, of which there is one: "cpu:0" is "cpu".

    Raises:
        ConfigError: unknown, or not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device {name!r} cannot be used; allowed: auto, cpu, cuda, cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device {name!r} is not there: {torch.cuda.device_count()} CUDA devices found; use cpu")
    return torch.device("cpu") if device.type == "cpu" else device


@contextmanager
def cpu_threads(n: int | None) -> Iterator[None]:
    """Let torch and numpy use `n` CPU threads inside; None changes nothing."""
    if n is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        with threadpool_limits(n, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)
