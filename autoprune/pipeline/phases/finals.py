"""The final trainings: the winner and what it is compared with, with the same protocols and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from autoprune.export.safetensors import WEIGHTS
from autoprune.files import patiently
from autoprune.pipeline.phases.context import RunContext
from autoprune.texts import score_text
from autoprune.verdict.finals import FinalPlan, epochs_of, train_finals
from autoprune.verdict.record import ARMS, WINNER, Arm, FinalTraining
from autoprune.verdict.teaching import taught_protocols


def final_weights(run: RunContext, arm: str = WINNER) -> Path:
    """Where the weights of an arm's first final training by the first protocol lie.

    Those of other arms than the winner lie where their export needs them, so that they are kept once.
    """
    return run.directory / ("winner.safetensors" if arm == WINNER else f"{ARMS}/{arm}/{WEIGHTS}")


def final_trainings(run: RunContext, compared: Sequence[Arm]) -> list[FinalTraining]:
    """Every final training of these; none where the job wants no verdict."""
    options = run.job.verdict
    if not options.seeds:
        return []
    run.progress.phase("final trainings", len(compared) * len(options.protocols) * options.seeds)
    return train_finals(
        run.engine.engine,
        compared,
        FinalPlan(
            options.protocols,
            options.seeds,
            options.fine_tune_epochs,
            run.job.training.lr,
            run.job.seed,
            taught_protocols(options.protocols, run.task),
            partial(epochs_of, space=run.prepared.space, base_epochs=run.job.training.epochs),
        ),
        notebook=run.notebook("final trainings"),
        weights=partial(final_weights, run),
        write=partial(_keep, run),
        on_final=lambda f: run.progress.advance(
            f"{f.arm}, {f.protocol}, seed {f.seed}: {score_text(f.score, run.task.scale)}"
        ),
    )


def _keep(run: RunContext, path: Path, content: bytes) -> None:
    """Write weights into the run, with their checksum."""
    name = path.relative_to(run.directory.path).as_posix()
    if "/" in name:
        folder = run.directory / ARMS
        patiently(partial(folder.mkdir, exist_ok=True), f"run directory {folder}", (OSError,))
    run.directory.write_bytes(name, content)
