"""What cheap scores say about the same vectors of widths: evaluators as searches use them, on validation images."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self, final

import numpy as np
import torch
from torch import nn

from autoprune.config.training import Recipe
from autoprune.controllers.parts.proposals import as_widths
from autoprune.evaluators.artefact import prepared
from autoprune.evaluators.base import Evaluator
from autoprune.evaluators.candidates import CandidateFactory
from autoprune.evaluators.making import make_evaluator
from autoprune.measures.base import make_measure
from autoprune.proxies import PROXIES
from autoprune.space.groups import Widths
from autoprune.tasks.classification import ClassificationTask
from ranking.networks import Ranked

VALIDATION = 2_000
"""Images that scores are taken on, where nothing else is said."""
_FEW = {"validation_limit": 700, "calibration_batches": 3, "form": "fast"}
"""For a twentieth of a training's cost: 1,084 images, 4 % of the passes of the cheaper way."""
_CPU = torch.device("cpu")
_DRAWN = 10
"""Networks that tell how far scores vary, as in a run."""
_INHERIT: Mapping[str, list[Any]] = {
    "recalibrated": ["bn_recalibration"],
    "mean_fold": ["mean_fold", "bn_recalibration"],
    "least_squares": ["least_squares", "bn_recalibration"],
    "sequential": ["sequential_least_squares", "bn_recalibration"],
}


@final
@dataclass(frozen=True, slots=True)
class Judge:
    """A way to score widths.

    Attributes:
        evaluator: its name.
        settings: of the evaluator.
        inherit: one of `_INHERIT`; None for evaluators that inherit nothing.
        measure: what scores count.
    """

    evaluator: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    inherit: str | None = None
    measure: str = "accuracy"


def judges() -> dict[str, Judge]:
    """Name in the tables -> judge."""
    found = {f"zero_cost, {name}": Judge("zero_cost", {"proxy": name}) for name in PROXIES.names()}
    limit = {"validation_limit": VALIDATION}
    for inherit in _INHERIT:
        for measure in ("accuracy", "loss", "divergence"):
            found[f"inherited, {inherit}, {measure}"] = Judge("inherited", limit, inherit, measure)
    for inherit in ("recalibrated", "mean_fold", "least_squares"):
        for measure in ("accuracy", "loss"):
            found[f"inherited, {inherit}, {measure}, few images"] = Judge("inherited", _FEW, inherit, measure)
    for steps in (10, 30, 90):
        taught = {"steps": steps, "distil": True, **limit}
        found[f"short_training, {steps} steps, accuracy"] = Judge("short_training", taught)
        found[f"short_training, {steps} steps, loss"] = Judge("short_training", taught, measure="loss")
    few = {"name": "inherited", "settings": _FEW}
    found["blend of log_width and least_squares, accuracy, few images"] = Judge(
        "blend", {"parts": [few, "zero_cost"]}, "least_squares"
    )
    found["supernet, accuracy"] = Judge("supernet", {"epochs": 2, **limit})
    return found


@final
@dataclass(frozen=True, slots=True)
class Scored:
    """One vector scored by one judge; what it gave is None until it is known.

    Attributes:
        network: its name.
        budget: percent of the FLOPs.
        number: of the vector.
        judge: its name.
        score: higher is better.
        passes: images through a network, the candidate or the full one; where gradients are wanted each counts as
            three.
        cpu_seconds: of the evaluation, without what is done once.
    """

    network: str
    budget: int
    number: int
    judge: str
    score: float | None = None
    passes: float = 0.0
    cpu_seconds: float = 0.0

    @property
    def key(self) -> tuple[str, int, int, str]:
        """What it is a score of."""
        return self.network, self.budget, self.number, self.judge


def score_all(
    ranked: Ranked, vectors: Mapping[int, Mapping[int, Widths]], known: set[tuple[Any, ...]], names: list[str]
) -> Iterator[Scored]:
    """Yield the scores that are not known, judge by judge.

    Args:
        ranked: the network.
        vectors: percent of the FLOPs -> number -> widths.
        known: keys of the scores that are.
        names: of the judges.
    """
    for name in names:
        judge = judges()[name]
        alone = judge.evaluator == "blend"  # how far scores vary depends on the budget
        for budgets in [[budget] for budget in vectors] if alone else [list(vectors)]:
            missing = [
                (Scored(ranked.name, budget, number, name), widths)
                for budget in budgets
                for number, widths in vectors[budget].items()
            ]
            missing = [(row, widths) for row, widths in missing if row.key not in known]
            if missing:
                yield from _scored(missing, _evaluator(ranked, judge, budgets[0]))


def _scored(missing: list[tuple[Scored, Widths]], evaluator: Evaluator) -> Iterator[Scored]:
    evaluator.evaluate(missing[0][1], seed=0)  # what is done once
    with _Meter() as meter:  # hooks take time, so that it is not there when seconds are taken
        evaluator.evaluate(missing[0][1], seed=0)
    for row, widths in missing:
        start = time.process_time()
        score = float(evaluator.evaluate(widths, seed=0))
        yield replace(row, score=score, passes=meter.passes, cpu_seconds=time.process_time() - start)


@final
class _Meter:
    """Counts images that pass through networks: once forward, two times more where gradients are wanted."""

    def __init__(self) -> None:
        self.passes = 0.0
        self._inside = 0

    def __enter__(self) -> Self:
        self._hooks = (
            nn.modules.module.register_module_forward_pre_hook(self._enter),
            nn.modules.module.register_module_forward_hook(self._leave, always_call=True),
        )
        return self

    def _enter(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if not self._inside and inputs and isinstance(inputs[0], torch.Tensor):
            self.passes += len(inputs[0]) * (3.0 if torch.is_grad_enabled() else 1.0)
        self._inside += 1

    def _leave(self, module: nn.Module, inputs: Any, outputs: Any) -> None:
        self._inside -= 1

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()


def _evaluator(ranked: Ranked, judge: Judge, budget: int) -> Evaluator:
    """A judge that is ready; what it draws, if anything, is on this budget."""
    recipe = Recipe(epochs=20, lr=0.1, batch_size=128, weight_decay=5e-4, objective={"name": "distillation"})
    task = ClassificationTask(ranked.splits, recipe, device=_CPU, measure=make_measure(judge.measure))
    inherit = None if judge.inherit is None else tuple(_INHERIT[judge.inherit])
    drawn = tuple(map(as_widths, ranked.domain(budget).sample(_DRAWN, np.random.default_rng(0))))
    factory = CandidateFactory(
        ranked.model, ranked.space, ranked.ranking, task, base_epochs=20, inherit=inherit, drawn=drawn
    )
    evaluator = make_evaluator(judge.evaluator, factory, judge.settings)
    evaluator.load(prepared(evaluator, Path(tempfile.mkdtemp()), seed=0))  # it is used as long as this process lives
    return evaluator
