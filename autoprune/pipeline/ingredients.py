"""From a job file to the things it names: model, data, task, example input."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from autoprune.config import Job, load_job
from autoprune.data import load_data
from autoprune.errors import ConfigError, RunError
from autoprune.export.architecture import PYTHON_MODEL
from autoprune.pipeline.prepare import Ingredients
from autoprune.training.loop import Recipe
from autoprune.training.task import ClassificationTask
from autoprune.zoo import build_model, load_weights


def ingredients_of(job: Job) -> Ingredients:
    """Build what a job names.

    Raises:
        AutopruneError: a name, an argument, data or weights cannot be used.
    """
    data = load_data(job.data.name, path=job.data.path, arguments=job.data.arguments)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.seed)  # the factory draws the initial weights of the base network
        model = build_model(job.model.factory, job.model.arguments)
    if job.model.weights is not None:
        load_weights(model, job.model.weights)
    task = ClassificationTask(data, Recipe(**job.training.model_dump()), device=pick_device(job.device))
    inputs = example_of(data.input_shape)
    _check_outputs(model, inputs, data.classes)
    return Ingredients(job, model, job.model.weights is not None, (inputs,), task)


def job_of_run(directory: Path) -> Job:
    """The job that a run was started with.

    Raises:
        RunError: no run there, or one that was started from Python with objects.
    """
    if not (directory / "job.yaml").is_file():
        raise RunError(f"{directory} is not a run directory: it holds no job.yaml; give the path the search printed")
    job = load_job(directory / "job.yaml")
    if job.model.factory == PYTHON_MODEL:
        raise RunError(
            f"{directory} was started from Python with a model object; go on with it there: "
            f"autoprune.search(…, run_dir={str(directory)!r}, resume=True)"
        )
    return job


def pick_device(name: str) -> torch.device:
    """Return the device of this name, "auto" for the first GPU or the CPU.

    Raises:
        ConfigError: unknown, or not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device {name!r} is unknown; allowed: auto, cpu, cuda, cuda:N") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device {name!r} is not there: {torch.cuda.device_count()} CUDA devices found; use cpu")
    return device


def example_of(shape: tuple[int, ...]) -> Tensor:
    """One random input of this shape (without the batch); always the same."""
    return torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))


def _check_outputs(model: nn.Module, inputs: Tensor, classes: int | None) -> None:
    was_training = model.training
    try:
        with torch.no_grad():
            outputs = model.eval()(inputs)
    except (RuntimeError, ValueError, TypeError) as error:
        raise ConfigError(
            f"the model does not run on the data's inputs of shape {tuple(inputs.shape[1:])}: {error}. "
            f"Set model.arguments (in_channels, …) to fit the data"
        ) from error
    finally:
        model.train(was_training)
    if classes is not None and isinstance(outputs, Tensor) and outputs.ndim == 2 and outputs.shape[1] != classes:
        raise ConfigError(
            f"the model has {outputs.shape[1]} outputs but the data have {classes} classes; "
            f"set model.arguments.classes to {classes}"
        )
