"""The first phase of a run: the network that candidates inherit from."""

from __future__ import annotations

import time

from torch import nn

from autoprune.errors import RunError
from autoprune.evaluators.trained import TrainedScore, train_and_score
from autoprune.files import read_json
from autoprune.pipeline.family import BASE, TRAINED
from autoprune.pipeline.fingerprints import weights_fingerprint
from autoprune.pipeline.phases.context import RunContext
from autoprune.space.copying import copy_network
from autoprune.tasks.score import Score
from autoprune.training.state import weights_as_bytes
from autoprune.trials.run_files import checksum, checksum_of, read_run
from autoprune.zoo import load_weights

ABOUT, WEIGHTS = BASE


def base_network(run: RunContext) -> nn.Module:
    """The trained network on the task's device, always as read from disk: a resumed run sees the same.

    Raises:
        RunError: the weights on disk are not those that the run trained.
    """
    path = run.directory / WEIGHTS
    if not _there(run) and run.family is not None:
        run.family.copy_base(run.directory)
    if not _there(run):
        _train(run)
    base = copy_network(run.prepared.network)
    load_weights(base, path)
    if weights_fingerprint(base) != read_json(run.directory / ABOUT)["weights"]:
        raise RunError(f"{path} is not the base network that the run trained; start a new run")
    return base.to(run.task.device).eval()


def _there(run: RunContext) -> bool:
    return all((run.directory / name).is_file() for name in BASE)


def _train(run: RunContext) -> None:
    """Train as the job says, unless the weights were given, and write what is not there of the two files."""
    _check_trained(run)
    run.prepared.check_given()
    base, task = copy_network(run.prepared.network), run.task
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
    weights = weights_as_bytes(base)
    _check_same(run, checksum(weights), str(about["weights"]))
    if not (run.directory / ABOUT).is_file():
        run.directory.write_json(ABOUT, about)
    run.directory.write_bytes(WEIGHTS, weights)


def _check_trained(run: RunContext) -> None:
    """A call from Python goes on with the same base network: given, or trained first; raises RunError."""
    now = run.prepared.run_inputs.trained
    begun = read_run(run.directory.path).get(TRAINED, now)  # runs of older versions have none
    if begun != now:
        raise RunError(
            f"{run.directory.path} cannot be resumed: it was begun with trained={begun} and has no base network yet, "
            f"and this call has trained={now}; give trained={begun}, or start a new run"
        )


def _check_same(run: RunContext, now: str, fingerprint: str) -> None:
    """Trials are cut from the base network: one that was lost and trained again must be the one that they know.

    Raises:
        RunError: it is another one, and there are trials.
    """
    about = run.directory / ABOUT
    known = {checksum_of(run.directory.path, WEIGHTS) or now}
    same = known == {now} and (not about.is_file() or read_json(about)["weights"] == fingerprint)
    if same:
        return
    if run.has_scores:
        raise RunError(
            f"{run.directory / WEIGHTS} was lost or damaged, and training it again gave another network, to which the "
            f"trials of this run do not belong: restore the file, or start a new run"
        )
    about.unlink(missing_ok=True)
