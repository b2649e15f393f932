"""Seconds of scoring a candidate beside those of its forward passes in their fastest form."""

from __future__ import annotations

import importlib.util
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from reconstruction.bases import BASES, trained
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from autoprune.config.training import Recipe
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.evaluators.base import Evaluator
from autoprune.evaluators.candidates import CandidateFactory
from autoprune.evaluators.making import make_evaluator
from autoprune.evaluators.scoring_form import ScoringForm
from autoprune.importance.members import rank_channels
from autoprune.space.cutting.graph_form import graph_network
from autoprune.space.groups import Widths
from autoprune.space.tracing.trace import trace
from autoprune.tasks.classification import ClassificationTask

CALIBRATION_BATCHES = 10
_PIECES = (512, 64)


@final
@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of CPU time, the least of some rounds.

    Attributes:
        network: its name.
        images: of validation; and of calibration.
        plain: of scoring a candidate in the plain form.
        fast: in the fast form.
        form: that was chosen.
        passes: of the forward passes over the same images as the sliced network is.
        fastest: of the same in their fastest form, norms folded by torch's own fusion, the best of layouts and pieces.
        peer: of FastNAS; None where it is not installed.
    """

    network: str
    images: tuple[int, int]
    plain: float
    fast: float
    form: str
    passes: float
    fastest: float
    peer: float | None = None


def costs(name: str, bases: Path, *, data: Path | None, images: int, rounds: int) -> Cost:
    """Measure one network."""
    zoo, _, as_graph = name.partition(" as ")
    splits = BASES[zoo].load(path=data, train_limit=CALIBRATION_BATCHES * 128, test_limit=500)
    task = ClassificationTask(splits, Recipe(batch_size=128), device=torch.device("cpu"))
    model = trained(zoo, bases, seed=0, data=data).model
    example = task.example_input().repeat(2, 1, 1, 1)
    traced = trace(model, example)
    space, network = traced.space, model
    if as_graph:
        space = replace(space, form="graph")
        network = graph_network(model, traced.program, space, traced.example)
    factory = CandidateFactory(network, space, rank_channels(network, space, "l2"), task, 0)
    sliced = replace(factory, model=model, space=traced.space).candidate
    domain = BudgetedSpace(space, {"flops": "25%"})
    widths: Widths = tuple(int(w) for w in domain.repair(np.array([space.uniform(0.5)]))[0])
    settings = {"calibration_batches": CALIBRATION_BATCHES, "validation_limit": images}
    plain = make_evaluator("inherited", factory, settings)
    fast, form = _fast(factory, settings)
    same = [
        *task.calibration_inputs(CALIBRATION_BATCHES, seed=0),
        *(batch.inputs for batch in task.scored_batches("validation", images)),
    ]
    calibration = sum(len(x) for x in same[:CALIBRATION_BATCHES])
    validation = sum(len(x) for x in same[CALIBRATION_BATCHES:])
    ways: dict[str, Callable[[], Any]] = {
        "plain": lambda: plain.evaluate(widths, seed=0),
        "fast": lambda: fast.evaluate(widths, seed=0),
        "passes": _passes(sliced(widths).eval(), same, None),
    }
    fused = fuse(sliced(widths).eval())
    for piece in _PIECES:
        ways[f"folded {piece}"] = _passes(fused, same, piece)
        ways[f"folded last {piece}"] = _passes(fuse(sliced(widths).eval()), same, piece, last=True)
    seconds = _in_turns(ways, rounds)
    fastest = min(seconds[way] for way in seconds if way not in ("plain", "fast"))
    measured = Cost(
        name, (validation, calibration), seconds["plain"], seconds["fast"], str(form), seconds["passes"], fastest
    )
    return replace(measured, peer=_fastnas(model, same) if importlib.util.find_spec("modelopt") else None)


def _fast(factory: CandidateFactory, settings: dict[str, Any]) -> tuple[Evaluator, ScoringForm]:
    made = make_evaluator("inherited", factory, {**settings, "form": "fast"})
    with tempfile.TemporaryDirectory() as folder:
        made.prepare(Path(folder), seed=0)
        made.load(Path(folder))
        return made, ScoringForm.read(Path(folder))


def _passes(
    network: nn.Module, batches: Sequence[Tensor], piece: int | None, *, last: bool = False
) -> Callable[[], None]:
    pieces = [part for batch in batches for part in batch.split(piece or len(batch))]
    if last:
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        pieces = [part.contiguous(memory_format=torch.channels_last) for part in pieces]

    def run() -> None:
        with torch.inference_mode():
            for part in pieces:
                network(part)

    return run


def _in_turns(ways: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """The least CPU time of each over rounds in which all take their turn; the first, in which caches fill, not."""
    seconds = dict.fromkeys(ways, float("inf"))
    for number in range(rounds + 1):
        for way, run in ways.items():
            started = time.process_time()
            run()
            if number:
                seconds[way] = min(seconds[way], time.process_time() - started)
    return seconds


def _fastnas(model: nn.Module, batches: Sequence[Tensor]) -> float:
    """CPU seconds of what Model Optimizer's FastNAS does for each candidate: norms calibrated, then a score."""
    import modelopt.torch.nas as mtn

    network = mtn.convert(model, mode="fastnas")
    mtn.sample(network)
    started = time.process_time()
    with torch.no_grad():
        network.train()
        for batch in batches[:CALIBRATION_BATCHES]:
            network(batch)
        network.eval()
        for batch in batches[CALIBRATION_BATCHES:]:
            network(batch)
    return time.process_time() - started
