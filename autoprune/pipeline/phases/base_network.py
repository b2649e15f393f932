"""The first phase of a run: the network that candidates inherit from."""

from __future__ import annotations

import copy
import time

from torch import nn

from autoprune.errors import RunError
from autoprune.evaluators.trained import TrainedScore, train_and_score
from autoprune.files import read_json
from autoprune.pipeline.fingerprints import weights_fingerprint
from autoprune.pipeline.phases.context import RunContext
from autoprune.tasks.score import Score
from autoprune.verdict.finals import save_weights
from autoprune.zoo import load_weights


def base_network(run: RunContext) -> nn.Module:
    """The trained network on the task's device, always as read from disk: a resumed run sees the same.

    Raises:
        RunError: the weights on disk are not those that the run trained.
    """
    path = run.directory / "base.safetensors"
    if not path.is_file() and run.family is not None:
        run.family.copy_base(run.directory)
    if not path.is_file():
        _train(run)
    base = copy.deepcopy(run.prepared.network)
    load_weights(base, path)
    if weights_fingerprint(base) != read_json(run.directory / "base.json")["weights"]:
        raise RunError(f"{path} is not the base network that the run trained; start a new run")
    return base.to(run.task.device).eval()


def _train(run: RunContext) -> None:
    """Train as the job says, unless the weights were given, and write `base.json`, then `base.safetensors`."""
    run.prepared.check_given()
    base, task = copy.deepcopy(run.prepared.network), run.task
    scores: list[Score] = []

    def score(network: nn.Module) -> float:
        scores.append(task.compared_with(network).scored(network))
        return float(scores[-1])

    epochs = 0 if run.prepared.run_inputs.trained else run.job.training.epochs
    started = time.perf_counter()
    if epochs:
        run.progress.phase("base network", epochs)
        trained = train_and_score(
            task,
            base,
            score,
            epochs=epochs,
            seed=run.job.seed,
            progress=lambda done, total, loss: run.progress.advance(f"loss {loss:.3f}"),
            compare=True,
        )
    else:
        base = base.to(task.device).eval()
        trained = TrainedScore(score(base), None)
    about = {
        "validation": trained.score,
        "as_trained": trained.as_trained,
        "noise": scores[-1].standard_error,
        "epochs": epochs,
        "seconds": time.perf_counter() - started,
        "weights": weights_fingerprint(base),
    }
    run.directory.write_json("base.json", about)
    save_weights(base, run.directory / "base.safetensors")
