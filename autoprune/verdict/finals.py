"""Final trainings: every arm by every protocol with the same seeds; the only place that touches test data.

Longer than others, as how a training is planned, done and found again must fit each other.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from torch import nn

from autoprune.allocation import UNIFORM
from autoprune.config.parts import PartOptions
from autoprune.cost.flops import flops
from autoprune.engines.base import Engine, Failure
from autoprune.errors import EvaluationError, RunError, told_of_traceback
from autoprune.evaluators.candidates import CandidateFactory
from autoprune.evaluators.gradual import GradualCuts, stages
from autoprune.evaluators.lottery import ticket
from autoprune.evaluators.trained import train_and_score
from autoprune.files import content_of, write_whole
from autoprune.space.groups import SearchSpace, Widths
from autoprune.tasks.score import Score
from autoprune.training.protocols import make_protocol, reinitialise
from autoprune.training.state import weights_as_bytes
from autoprune.training.watch import Watch
from autoprune.trials.ledger import Notebook
from autoprune.trials.run_files import checksum
from autoprune.verdict.record import Arm, FinalTraining

_EPOCHS = re.compile(r"@\d+$")
"""Ends the name of a training under which another length of it is known already."""


@final
@dataclass(frozen=True, slots=True, eq=False)
class FinalPlan:
    """How the final networks are trained.

    Attributes:
        protocols: the deciding one first.
        seeds: trainings per arm and protocol.
        fine_tune_epochs: for protocols that start from inherited weights.
        base_lr: learning rate of the base network.
        seed: first seed; the same seeds serve every arm, so that differences are paired.
        taught: labels of protocols whose trainings learn from the base network (`teaching.taught_protocols`).
        epochs: of a training, where trainings of another length may be known, as of a run that goes on with longer
            ones; None: whatever is known by the same name counts.
    """

    protocols: tuple[PartOptions, ...]
    seeds: int
    fine_tune_epochs: int
    base_lr: float
    seed: int
    taught: frozenset[str] = frozenset()
    epochs: Callable[[PlannedFinal], int] | None = None


@final
@dataclass(frozen=True, slots=True)
class PlannedFinal:
    """One final training, whatever arms it serves.

    Attributes:
        widths: of the network.
        protocol: by which it is trained.
        seed: of everything random.
        fine_tune_epochs: for protocols that start from inherited weights.
        base_lr: learning rate of the base network.
        keeps_weights: the trained weights are wanted, not only their score.
        start: other weights than the base network's that it goes on from, see `CandidateFactory.starts`.
        distilled: whether it learns from the base network.
    """

    widths: Widths
    protocol: PartOptions
    seed: int
    fine_tune_epochs: int
    base_lr: float
    keeps_weights: bool
    start: str = ""
    distilled: bool = False

    @property
    def key(self) -> str:
        """Names it in the notebook."""
        return final_key(self.protocol.label, self.seed, self.widths, self.start, distilled=self.distilled)


@final
@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """What came of a final training.

    Attributes:
        score: on test data, of the network whose weights these are.
        as_trained: the score before its running statistics were recalibrated; None where they were not.
        noise: standard error of the score; None if unknown.
        epochs: of the training.
        seconds: wall time.
        weights: as the bytes of a safetensors file, where they were wanted.
    """

    score: float
    as_trained: float | None
    noise: float | None
    epochs: int
    seconds: float
    weights: bytes | None


def train_finals(
    engine: Engine,
    arms: Sequence[Arm],
    plan: FinalPlan,
    *,
    notebook: Notebook,
    weights: Callable[[str], Path],
    on_final: Callable[[FinalTraining], None],
    write: Callable[[Path, bytes], None] = write_whole,
) -> list[FinalTraining]:
    """Train what the notebook does not hold yet; arms of equal widths share their trainings.

    The first network of every arm by the first protocol is kept with its weights, and trained again where that file is
    lost. The others' weights are not kept: they would be a file of the network's size for each protocol and seed.

    Args:
        engine: equipped with the factory; it may train several at once.
        arms: the winner and what it is compared with.
        plan: how.
        notebook: keeps each training the moment it ends.
        weights: name of an arm -> the file for its weights, below a folder that need not be there.
        on_final: called for every arm, protocol and seed as soon as it is known.
        write: writes a file.

    Raises:
        EvaluationError: a final training failed; the others are kept.
    """
    rows = [(arm, _piece(arm, protocol, seed, plan)) for protocol, seed in _pairs(plan) for arm in arms]
    kept_at: dict[str, int] = {}
    known = _known(notebook, {piece.key: piece for _, piece in rows}, plan, kept_at)
    left: dict[str, PlannedFinal] = {}
    for arm, piece in rows:
        before = known.get(piece.key)
        if before is None or (piece.keeps_weights and not _holds(weights(arm.name), arm.name, before)):
            left.setdefault(piece.key, piece)
    for arm, piece in rows:
        if piece.key not in left:
            on_final(_final(arm, piece, known[piece.key]))
    missing, failures = list(left.values()), []
    for position, trained in engine.train(train_final, missing):
        done = missing[position]
        if isinstance(trained, Failure):
            failures.append((done, trained.error))
            continue
        served = [arm for arm, piece in rows if piece.key == done.key]
        if trained.weights is not None:
            for arm in served:
                write(weights(arm.name), trained.weights)
        record = _record(trained, served[0])
        name = done.key if kept_at.get(done.key, trained.epochs) == trained.epochs else f"{done.key}@{trained.epochs}"
        notebook.write(name, trained.score, record | {"protocol": done.protocol.label, "seed": done.seed})
        known[done.key] = record | {"score": trained.score}
        for arm in served:
            on_final(_final(arm, done, known[done.key]))
    for failed, error in failures:
        raise EvaluationError(
            f"{told_of_traceback(error)}; so ended a final training ({failed.protocol.label}, seed {failed.seed}, "
            f"widths {failed.widths}). {len(failures)} of {len(missing)} failed, the others are kept: correct the "
            f"cause, then resume the run"
        )
    return [_final(arm, piece, known[piece.key]) for arm, piece in rows]


def train_final(factory: CandidateFactory, piece: PlannedFinal, watch: Watch | None = None) -> Trained:
    """Do one final training; runs where the engine has it run.

    Raises:
        EvaluationError: the training diverged.
    """
    started, teacher = time.perf_counter(), factory.model
    factory, protocol = factory.starting_from(piece.start), make_protocol(piece.protocol)
    if not protocol.trains:
        return _untrained(factory, piece, started)
    epochs, cut, cuts = epochs_of(piece, factory.space, factory.base_epochs), None, None
    if protocol.steps:
        at = stages(factory.space, piece.widths, steps=protocol.steps, share=protocol.cutting, epochs=epochs)
        gradual = GradualCuts(factory, at)
        network, cuts = gradual.start(), gradual.cuts
    elif protocol.rounds:
        lr = protocol.lr(piece.base_lr)
        rounds, rewind = protocol.rounds, protocol.rewind
        network = ticket(factory, piece.widths, rounds=rounds, rewind=rewind, epochs=epochs, lr=lr, seed=piece.seed)
    elif protocol.inherits:
        cut = factory.heirs("training").cut(piece.widths)
        network = cut.network
    else:
        cut = factory.cut(piece.widths)
        network = cut.network
        reinitialise(network, seed=piece.seed)
    scores: list[Score] = []
    task = (factory.task.distilled() if piece.distilled else None) or factory.task

    def score(network: nn.Module) -> float:
        scores.append(task.scored(network, split="test"))
        return float(scores[-1])

    trained = train_and_score(
        task,
        network,
        score,
        epochs=epochs,
        seed=piece.seed,
        lr=protocol.lr(piece.base_lr),
        watch=watch,
        compare=True,
        teacher=teacher,
        cuts=cuts,
        cut=cut,
    )
    weights = weights_as_bytes(network) if piece.keeps_weights else None
    noise = scores[-1].standard_error
    return Trained(trained.score, trained.as_trained, noise, epochs, time.perf_counter() - started, weights)


def _untrained(factory: CandidateFactory, piece: PlannedFinal, started: float) -> Trained:
    """A network as inheritance makes it, on inputs of a draw that is not the search's."""
    network = factory.heirs("final", draw=1 + piece.seed)(piece.widths)
    score = factory.task.scored(network, split="test")
    weights = weights_as_bytes(network) if piece.keeps_weights else None
    return Trained(float(score), None, score.standard_error, 0, time.perf_counter() - started, weights)


def epochs_of(piece: PlannedFinal, space: SearchSpace, base_epochs: int) -> int:
    """How long a final training takes.

    Args:
        piece: the training.
        space: its widths are a member of.
        base_epochs: of the base network's training.
    """
    full, cut = flops(space)(np.array([space.full, piece.widths]))
    return make_protocol(piece.protocol).epochs(base_epochs, piece.fine_tune_epochs, float(full / max(1.0, cut)))


def final_key(protocol: str, seed: int, widths: Widths, start: str = "", *, distilled: bool = False) -> str:
    """Names a final training in the notebook."""
    return f"{protocol}{'+distillation' if distilled else ''}/{seed}/{'-'.join(map(str, widths))}{start and '/'}{start}"


def key_without_epochs(name: str) -> str:
    """The key of a planned training, given the name under which a notebook has one."""
    return _EPOCHS.sub("", name)


def save_weights(network: nn.Module, path: Path) -> None:
    """Write `weights_as_bytes` in one step."""
    write_whole(path, weights_as_bytes(network))


def _known(
    notebook: Notebook, planned: Mapping[str, PlannedFinal], plan: FinalPlan, kept_at: dict[str, int]
) -> dict[str, Mapping[str, Any]]:
    """Key of a planned training -> its record; `kept_at` gets the epochs of what lies under the key itself."""
    found: dict[str, Mapping[str, Any]] = {}
    for name, record in notebook.read().items():
        key = key_without_epochs(name)
        if "as_trained" not in record or key not in planned:  # older: other scores
            continue
        if name == key:
            kept_at[key] = record["epochs"]
        if plan.epochs is None or record["epochs"] == plan.epochs(planned[key]):
            found[key] = record
    return found


def _record(trained: Trained, arm: Arm) -> dict[str, Any]:
    """What a notebook keeps of a training, beside its score; `arm` is the first one that it serves."""
    kept = {name: getattr(trained, name) for name in ("epochs", "seconds", "as_trained", "noise")}
    content = trained.weights
    return kept | {"arm": arm.name} | ({} if content is None else {"weights": checksum(content)})


def _holds(path: Path, arm: str, record: Mapping[str, Any]) -> bool:
    """Whether a file has the weights of this training of an arm.

    Records of older versions do not tell. The file is of the arm as it was then: uniform ones never change.
    """
    try:
        found = checksum(content_of(path))
    except RunError:
        return False
    known = record.get("weights")
    return bool(arm in UNIFORM or record["arm"] == arm) if known is None else found == known


def _pairs(plan: FinalPlan) -> list[tuple[PartOptions, int]]:
    return [(protocol, seed) for protocol in plan.protocols for seed in range(plan.seed, plan.seed + plan.seeds)]


def _piece(arm: Arm, protocol: PartOptions, seed: int, plan: FinalPlan) -> PlannedFinal:
    kept = (protocol, seed) == (plan.protocols[0], plan.seed)
    start = arm.start if make_protocol(protocol).inherits else ""
    taught = protocol.label in plan.taught
    return PlannedFinal(arm.widths, protocol, seed, plan.fine_tune_epochs, plan.base_lr, kept, start, taught)


def _final(arm: Arm, piece: PlannedFinal, known: Mapping[str, Any]) -> FinalTraining:
    seconds, score = float(known["seconds"]), float(known["score"])
    about = (known["as_trained"], known["noise"])
    return FinalTraining(arm.name, piece.protocol.label, piece.seed, known["epochs"], score, seconds, *about)
