"""The first phase of a run: the network that candidates inherit from."""

from __future__ import annotations

import copy
import time

from torch import nn

from autoprune.errors import RunError
from autoprune.evaluators.trained import TrainedScore, train_and_score
from autoprune.files import read_json
from autoprune.pipeline.family import Family
from autoprune.pipeline.prepare import Prepared, weights_fingerprint
from autoprune.progress.base import Progress
from autoprune.trials.run_directory import RunDirectory
from autoprune.verdict.finals import save_weights
from autoprune.zoo import load_weights


def base_network(
    prepared: Prepared, directory: RunDirectory, progress: Progress, family: Family | None = None
) -> nn.Module:
    """The trained network on the task's device, always as read from disk: a resumed run sees the same.

    Raises:
        RunError: the weights on disk are not those that the run trained.
    """
    path, task = directory / "base.safetensors", prepared.run_inputs.task
    if not path.is_file() and family is not None:
        family.copy_base(directory)
    if not path.is_file():
        _train(prepared, directory, progress)
    base = copy.deepcopy(prepared.network)
    load_weights(base, path)
    if weights_fingerprint(base) != read_json(directory / "base.json")["weights"]:
        raise RunError(f"{path} is not the base network that the run trained; start a new run")
    return base.to(task.device).eval()


def _train(prepared: Prepared, directory: RunDirectory, progress: Progress) -> None:
    """Train as the job says, unless the weights were given, and write `base.json`, then `base.safetensors`."""
    prepared.check_given()
    given, base = prepared.run_inputs, copy.deepcopy(prepared.network)
    job, task = given.job, given.task
    epochs = 0 if given.trained else job.training.epochs
    started = time.perf_counter()
    if epochs:
        progress.phase("base network", epochs)
        trained = train_and_score(
            task,
            base,
            task.score,
            epochs=epochs,
            seed=job.seed,
            progress=lambda done, total, loss: progress.advance(f"loss {loss:.3f}"),
            compare=True,
        )
    else:
        base = base.to(task.device).eval()
        trained = TrainedScore(task.score(base), None)
    about = {
        "validation": trained.score,
        "as_trained": trained.as_trained,
        "noise": task.noise(trained.score),
        "epochs": epochs,
        "seconds": time.perf_counter() - started,
        "weights": weights_fingerprint(base),
    }
    directory.write_json("base.json", about)
    save_weights(base, directory / "base.safetensors")
