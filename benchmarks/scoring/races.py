"""Searches with `racing` beside searches with `inherited` that run as many examples through networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, final

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from autoprune.config.training import Recipe
from autoprune.controllers import make_controller
from autoprune.controllers.base import Trial, TrialState
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.data import splits_from
from autoprune.data.base import DataSplits
from autoprune.data.batch import Batch
from autoprune.data.digits import load as digits
from autoprune.evaluators.candidates import CandidateFactory
from autoprune.evaluators.making import make_evaluator
from autoprune.importance.members import rank_channels
from autoprune.measures.accuracy import Accuracy
from autoprune.measures.base import Measure
from autoprune.space.groups import Widths
from autoprune.space.tracing.trace import trace
from autoprune.tasks.classification import ClassificationTask
from autoprune.tasks.score import as_score
from autoprune.trials.selection import shortlist, sure_leads

TRIALS = 30
"""Of a plain search."""

_REPEATS = 200
"""Proposals in a row that were scored before, after which a search ends: it has seen the space."""

_BATCH, _BATCHES = 64, 2
_BUDGET = "30%"


@final
@dataclass(frozen=True, slots=True)
class Raced:
    """Pairs of searches on one problem.

    Attributes:
        problem: its name.
        differences: score of racing's winner less that of the plain search's on test examples, one for each seed.
        trials: candidates that racing scored for the passes of `TRIALS` plain ones, on average.
        plain: score of the plain searches' winners, on average.
        examples: of validation, and of test.
    """

    problem: str
    differences: tuple[float, ...]
    trials: float
    plain: float
    examples: tuple[int, int]

    @property
    def interval(self) -> tuple[float, float]:
        """95 %, of the mean difference by Student's t."""
        mean, error = float(np.mean(self.differences)), float(stats.sem(self.differences))
        reach = float(stats.t.ppf(0.975, len(self.differences) - 1)) * error
        return mean - reach, mean + reach


@final
class Counted(Measure):
    """Accuracy that counts how many examples went through networks."""

    name, unit, lowest, highest = "accuracy", "%", 0.0, 100.0

    def __init__(self) -> None:
        self._inner, self.seen = Accuracy(), 0

    def values(self, outputs: Any, batch: Batch, base: Any) -> Tensor:
        """See `Measure.values`."""
        self.seen += len(batch)
        return self._inner.values(outputs, batch, base)


class SmallNet(nn.Module):
    """Three convolutions with norms and a classifier."""

    def __init__(self, classes: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in pairwise((1, *widths)):
            layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.features, self.head = nn.Sequential(*layers), nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images to logits."""
        logits: Tensor = self.head(self.features(x).mean((2, 3)))
        return logits


def stripes(validation: int = 2048, test: int = 8192) -> DataSplits:
    """The synthetic problem: eight classes of noisy stripes, of direction, phase and strength."""
    count = 512 + validation + test
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 8
    line = torch.arange(8) % 2 * 2.0 - 1.0
    patterns = torch.stack([line.expand(8, 8), line[:, None].expand(8, 8)])
    images = patterns[labels % 2] * (1.0 - 2.0 * (labels // 2 % 2))[:, None, None] * (1.0 + labels // 4)[:, None, None]
    images = (images + 1.5 * torch.randn(count, 8, 8, generator=generator))[:, None]
    ends = (0, 512, 512 + validation, count)
    parts = (TensorDataset(images[a:b], labels[a:b]) for a, b in pairwise(ends))
    return splits_from(tuple(parts), name="stripes")


def races(searches: int) -> list[Raced]:
    """Run all pairs."""
    problems: dict[str, tuple[Callable[[], DataSplits], tuple[int, ...], int]] = {
        "digits": (digits, (12, 16, 24), 20),
        "stripes (synthetic)": (stripes, (16, 24, 32), 8),
    }
    return [_raced(name, load(), widths, epochs, searches) for name, (load, widths, epochs) in problems.items()]


def _raced(problem: str, splits: DataSplits, widths: tuple[int, ...], epochs: int, searches: int) -> Raced:
    recipe = Recipe(epochs=epochs, lr=0.1, batch_size=_BATCH, weight_decay=5e-4)
    counted = Counted()
    task = ClassificationTask(splits, recipe, device=torch.device("cpu"), measure=counted)
    torch.manual_seed(0)
    model = SmallNet(splits.classes or 8, widths)
    task.train(model, epochs=epochs, seed=0)
    space = trace(model, task.example_input()).space
    factory = CandidateFactory(model, space, rank_channels(model, space, "l2"), task, epochs)
    domain = BudgetedSpace(space, {"flops": _BUDGET})
    differences, trials, plain = [], [], []
    for seed in range(searches):
        budget = TRIALS * (len(splits.validation) + _BATCH * _BATCHES)
        winners = [_searched(factory, domain, counted, way, seed, budget) for way in ("inherited", "racing")]
        scores = [task.score(factory.heirs("search")(widths), split="test") for widths, _ in winners]
        differences.append(scores[1] - scores[0])
        trials.append(winners[1][1])
        plain.append(scores[0])
        print(f"{problem}, search {seed}: {scores[0]:.2f} and {scores[1]:.2f}, {winners[1][1]} trials", flush=True)
    sizes = len(splits.validation), task.test_examples or 0
    return Raced(problem, tuple(differences), float(np.mean(trials)), float(np.mean(plain)), sizes)


def _searched(
    factory: CandidateFactory, domain: BudgetedSpace, counted: Counted, evaluator: str, seed: int, budget: int
) -> tuple[Widths, int]:
    """The winner of a search within so many passes of examples, and how many candidates were scored."""
    settings = {"calibration_batches": _BATCHES, **({"first": 64} if evaluator == "racing" else {})}
    made = make_evaluator(evaluator, factory, settings)
    controller = make_controller("evolution", domain, seed=seed, settings={}, trials=TRIALS)
    counted.seen, calibrated = 0, 0
    trials: list[Trial] = []
    known: dict[Widths, Trial] = {}
    repeats = 0
    while counted.seen + calibrated < budget and repeats < _REPEATS:
        widths = controller.ask(1)[0]
        trial = Trial(len(trials), widths, TrialState.COMPLETE, None)
        repeats = repeats + 1 if widths in known else 0
        if widths in known:
            controller.tell([replace(known[widths], number=len(trials))])
            continue
        best = sorted(trials, key=lambda one: -(one.score or 0.0))[: made.follows]
        told = {"incumbents": tuple(one.widths for one in best)} if made.follows else {}
        score = as_score(made.evaluate(widths, seed=0, **told))
        calibrated += _BATCH * _BATCHES
        trial = replace(trial, score=float(score), standard_error=score.standard_error, paired=score.paired)
        trials.append(trial)
        known[widths] = trial
        controller.tell([trial])
    return shortlist(sure_leads(domain, trials, ()), 1, domain)[0], len(trials)
