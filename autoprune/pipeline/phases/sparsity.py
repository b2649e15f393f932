"""The sparsity trainings of a job: done once, kept in the run, proposed to the search and compared at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
from torch import nn

from autoprune.allocation import UNIFORM
from autoprune.config.parts import NamedPart
from autoprune.engines.base import Failure
from autoprune.errors import EvaluationError, RunError, blame, told_of_traceback
from autoprune.evaluators.candidates import CandidateFactory, OtherStart
from autoprune.files import read_json
from autoprune.importance.members import ranking_of, unit_scores
from autoprune.pipeline.phases.context import RunContext
from autoprune.space.copying import copy_network
from autoprune.space.groups import FloatArray, Widths
from autoprune.sparsity.base import make_sparsity
from autoprune.sparsity.training import Sparsified, SparsityPiece, sparsify
from autoprune.trials.run_files import checksum
from autoprune.verdict.record import WINNER, Arm
from autoprune.zoo import load_weights

_TAKEN = (*UNIFORM, WINNER, "random_median", "flops_search")
"""Names of other arms."""

SPARSITY_ENTRY = "sparsity"
"""Of `run.json`: name of an arm -> what its sparsity training was and cost."""


@final
@dataclass(frozen=True, slots=True, eq=False)
class FoundWidths:
    """What one sparsity training has found.

    Attributes:
        name: of its arm.
        label: the method with its settings; the origin of its trial.
        widths: on the budget.
        scores: per group (slots,) importance of each channel.
        start: the arm goes on from its weights: the name; "": only the widths are taken.
    """

    name: str
    label: str
    widths: Widths
    scores: tuple[FloatArray, ...]
    start: str


def sparsity_trainings(run: RunContext) -> list[FoundWidths]:
    """Do those that are not on disk yet; nothing where the job names none.

    Args:
        run: on an equipped engine.

    Raises:
        EvaluationError: one failed; the others are kept.
        RunError: weights that were lost came out otherwise.
    """
    options, domain = run.job.sparsity, run.domain
    named = _named(options.methods)
    if not named:
        return []
    lr, target = options.lr_share * run.job.training.lr, domain.uniform()
    missing = [name for name in named if not all((run.directory / file).is_file() for file in _files(name))]
    run.progress.phase("sparsity trainings", len(named))
    pieces = [SparsityPiece(named[name], options.epochs, lr, run.job.seed, target) for name in missing]
    for name in named:
        if name not in missing:
            run.progress.advance(named[name].label)
    failures: list[Failure] = []
    for position, found in run.engine.engine.train(sparsify, pieces):
        if isinstance(found, Failure):
            failures.append(found)
            continue
        _keep(run, missing[position], pieces[position], found)
        run.progress.advance(named[missing[position]].label)
    if failures:
        raise EvaluationError(
            f"{told_of_traceback(failures[0].error)}; so ended a sparsity training. {len(failures)} of {len(pieces)} "
            f"failed, the others are kept: correct the cause, then resume the run"
        )
    found_widths = [_read(run, name, method) for name, method in named.items()]
    run.directory.update_run(**{SPARSITY_ENTRY: {one.name: _told(run, one) for one in found_widths}})
    return found_widths


def with_starts(factory: CandidateFactory, run: RunContext, found: Sequence[FoundWidths]) -> CandidateFactory:
    """The factory, which can also cut from the weights of those trainings whose arms go on from them."""
    starts = {one.start: _start(factory, run, one) for one in found if one.start}
    return replace(factory, starts=starts) if starts else factory


def sparsity_arms(run: RunContext, found: Sequence[FoundWidths], rescored: Mapping[Widths, float]) -> tuple[Arm, ...]:
    """One architecture of the final comparison for each sparsity training."""
    costs = run.domain.budget.costs_of
    return tuple(
        Arm(one.name, one.widths, costs(one.widths), rescored.get(one.widths), 1, one.label, one.start) for one in found
    )


def _named(methods: Sequence[NamedPart]) -> dict[str, NamedPart]:
    """Name of an arm -> its method; one that is named twice counts once, with other settings it has a number."""
    found: dict[str, NamedPart] = {}
    for method in {method.label: method for method in methods}.values():
        plain = method.name.rpartition(":")[2]
        plain = f"sparsity_{plain}" if plain in _TAKEN else plain
        number = sum(name == plain or name.startswith(f"{plain}-") for name in found) + 1
        found[plain if number == 1 else f"{plain}-{number}"] = method
    return found


def _files(name: str) -> tuple[str, str]:
    return f"sparsity_{name}.json", f"sparsity_{name}.safetensors"


def _keep(run: RunContext, name: str, piece: SparsityPiece, found: Sparsified) -> None:
    """Write a training, weights first; one that was lost and done again must be as it was, where there are trials."""
    about, weights = _files(name)
    made = checksum(found.weights)
    if (run.directory / about).is_file() and run.has_scores and read_json(run.directory / about)["weights"] != made:
        raise RunError(
            f"{run.directory / weights} was lost or damaged, and training it again gave another network: restore the "
            f"file, or start a new run"
        )
    run.directory.write_bytes(weights, found.weights)
    content = {
        "method": piece.method.label,
        "epochs": piece.epochs,
        "lr": found.lr,
        "passes": found.passes,
        "seconds": found.seconds,
        "weights": made,
        "scores": [scores.tolist() for scores in found.scores],
    }
    run.directory.write_json(about, content)


def _read(run: RunContext, name: str, chosen: NamedPart) -> FoundWidths:
    about, method = read_json(run.directory / _files(name)[0]), make_sparsity(chosen)
    scores = tuple(np.array(values, dtype=np.float64) for values in about["scores"])
    space, what = run.prepared.space, f"sparsity training {chosen.label!r}"
    with blame(EvaluationError, f"{what} gives no widths"):
        widths = method.widths(run.domain, unit_scores(space, scores))
    if widths not in space or not bool(run.domain.feasible(np.array([widths]))[0]):
        raise EvaluationError(f"{what} must give widths of the space inside the budget, got {widths}; correct its code")
    asked = run.job.sparsity.inherits
    inherits = method.inherits if asked is None else asked
    return FoundWidths(name, chosen.label, widths, scores, name if inherits else "")


def _told(run: RunContext, one: FoundWidths) -> dict[str, Any]:
    about = read_json(run.directory / _files(one.name)[0])
    kept = {key: about[key] for key in ("method", "epochs", "passes", "seconds")}
    return {**kept, "inherits": bool(one.start)}


def _start(factory: CandidateFactory, run: RunContext, one: FoundWidths) -> OtherStart:
    network: nn.Module = copy_network(factory.model)
    load_weights(network, run.directory / _files(one.name)[1])
    return OtherStart(network.to(run.task.device).eval(), ranking_of(run.prepared.space, one.scores))
