"""From a job file to the things it names: model, data, task, example input."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import yaml
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from autoprune.config.environment import is_withheld, variables
from autoprune.config.job import Job, load_job
from autoprune.data import load_data
from autoprune.data.base import DataSplits, Split
from autoprune.data.labelled import OTHER_TASKS, Labelled, no_batch
from autoprune.errors import ConfigError, DataError, RunError, UnsetVariableError, blame
from autoprune.export.architecture import PYTHON_MODEL
from autoprune.pipeline.prepare import RunInputs
from autoprune.randomness import seeded
from autoprune.tasks.classification import ClassificationTask
from autoprune.training.integrity import check_finite
from autoprune.zoo import build_model, load_weights

_FIRST = 8
"""So many examples of each split are tried before anything is written."""

_CORRECT = "Correct the data set."


def inputs_of_job(job: Job) -> RunInputs:
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
    device, classes = pick_device(job.device), check_outputs(model, data)
    task = ClassificationTask(data, job.training, device=device, classes=classes)
    return RunInputs(job, model, job.model.weights is not None, example_of(data.input_shape), task)


def job_of_run(directory: Path) -> Job:
    """The job that a run was started with.

    Raises:
        RunError: no run there, or one that was started from Python with objects.
    """
    if not (directory / "job.yaml").is_file():
        raise RunError(f"{directory} is not a run directory: it holds no job.yaml; give the path the search printed")
    try:
        job = load_job(directory / "job.yaml")
    except UnsetVariableError as error:
        raise RunError(f"{directory} cannot be resumed yet: {error}") from None
    except ConfigError as error:
        raise RunError(f"{directory} cannot be resumed: {error}; restore its job.yaml, or start a new run") from error
    if job.model.factory == PYTHON_MODEL:
        raise RunError(
            f"{directory} was started from Python with a model object; go on with it there: "
            f"autoprune.search(…, run_dir={str(directory)!r}, resume=True)"
        )
    return job


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
    """Return the device of this name, "auto" for the first GPU or the CPU.

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
    return device


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


def example_of(shape: tuple[int, ...]) -> Tensor:
    """One random input of this shape (without the batch); always the same."""
    return torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))


def check_outputs(model: nn.Module, data: DataSplits) -> int:
    """Run a copy of the model on the first examples of each split, and check all examples that lie in memory.

    Returns:
        How many classes the model tells apart.

    Raises:
        ConfigError: it does not take the data's inputs, does not return one output per class, or is not finite.
        DataError: examples cannot be read or are not as classification needs them.
    """
    check_finite(model)
    network, classes = copy.deepcopy(model).eval(), 0
    for role in ("train", "validation", "test"):
        split: Split | None = getattr(data, role)
        if split is None:
            continue
        with blame(DataError, f"{data.name}: the first examples of {role} cannot be read", then=_CORRECT):
            inputs, _ = next(split.batches(_FIRST, limit=_FIRST), (None, None))
        if inputs is None:
            raise no_batch(f"{data.name}: {role}")
        outputs = _outputs_of(network, inputs, data.classes)
        classes = outputs.shape[1]
        examples = Labelled(split, role, classes=classes)
        examples.check_stored()  # knows the rows by their owner's numbers
        next(examples.batches(_FIRST, limit=_FIRST))
        if not outputs.amax(1).isfinite().all():  # single classes may be masked by minus infinity
            raise ConfigError(
                f"the model returns NaN or infinite outputs for the first examples of {role}, which are finite; "
                f"load other weights, or correct its forward and what its buffers hold"
            )
    return classes


def _outputs_of(network: nn.Module, inputs: Tensor, classes: int | None) -> Tensor:
    """What a network returns for these inputs: one row for each, with a column for each class."""
    home = next((parameter.device for parameter in network.parameters()), inputs.device)
    with (
        blame(
            ConfigError,
            f"the model does not run on the data's inputs of shape {tuple(inputs.shape[1:])}",
            then="Set the model's arguments (in_channels, …) to fit the data.",
        ),
        seeded(0),
        torch.no_grad(),
    ):
        outputs: object = network(inputs.to(home))
    rows = isinstance(outputs, Tensor) and outputs.ndim == 2 and len(outputs) == len(inputs)
    if not isinstance(outputs, Tensor) or not rows or not outputs.is_floating_point():
        given = f"a tensor of shape {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else type(outputs).__name__
        kind = f" and type {outputs.dtype}" if isinstance(outputs, Tensor) and rows else ""
        raise ConfigError(
            f"the model returns {given}{kind} for {len(inputs)} inputs; classification needs a tensor (N, classes). "
            f"Return only that, or call autoprune.search from Python with your own score_func and train_func"
        )
    columns = outputs.shape[1]
    if classes is not None and columns != classes:
        raise ConfigError(
            f"the model has {columns} outputs but the data have {classes} classes; "
            f"set the model's number of classes to {classes}"
        )
    if columns < 2:
        raise ConfigError(
            f"the model has {columns} outputs, by which no classes can be told apart: give it two for two classes; "
            f"{OTHER_TASKS}"
        )
    return outputs
