"""Searches without networks: a cheap score that agrees with the true one as far as told, on a scale of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import final

import numpy as np
from optuna.storages import BaseStorage, InMemoryStorage
from smooth import FULL, half_of

from autoprune.controllers import make_controller
from autoprune.controllers.base import Trial
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.engines.local import run
from autoprune.engines.rungs import RungRule
from autoprune.evaluators.base import Evaluator
from autoprune.evaluators.chain import EvaluatorChain
from autoprune.evaluators.rungs import Rungs
from autoprune.space.groups import Widths
from autoprune.texts import ScoreScale
from autoprune.training.watch import Watch
from autoprune.trials.ledger import Ledger, open_storage
from autoprune.trials.session import SearchSession

Function = Callable[[Widths], float]


@cache
def domain() -> BudgetedSpace:
    return half_of()


@final
class Scored(Evaluator):
    """A function of the widths; counts its calls."""

    scale = ScoreScale("a function")

    def __init__(self, function: Function) -> None:
        self._function, self.calls = function, 0

    def evaluate(self, widths: Widths, *, seed: int, full: bool = False, watch: Watch | None = None) -> float:
        self.calls += 1
        return self._function(widths)


def standard(function: Function) -> Function:
    """The function with mean 0 and deviation 1 over the members of a budget."""
    values = [function(tuple(map(int, row))) for row in domain().sample(200, np.random.default_rng(0))]
    level, spread = float(np.mean(values)), float(np.std(values))
    return lambda widths: (function(widths) - level) / spread


def _bowl(seed: int) -> Function:
    """Best at widths of its own, which no uniform ones are; some groups matter more than others."""
    rng = np.random.default_rng(seed)
    weights, best = np.exp(rng.standard_normal(len(FULL))), rng.uniform(-1.2, 0.0, len(FULL))
    return standard(lambda widths: -float(weights @ np.square(np.log(np.array(widths) / FULL) - best)))


def _luck(seed: int) -> Function:
    """Noise of deviation 1 that is the same for the same widths."""
    return lambda widths: float(np.random.default_rng([seed, *widths]).standard_normal())


def problem(seed: int, correlation: float, *, noise: float = 0.5) -> tuple[Function, Function, Function]:
    """A cheap score, the one that counts, and the truth that the latter is, but for its noise.

    The correlation of the cheap score with the truth inside the budget is as told. Half of what it is off by is noise,
    half follows the widths by a law of its own; and its scale is another one.
    """
    true, other, luck = _bowl(2 * seed), _bowl(2 * seed + 1), _luck(seed)
    rows = [tuple(map(int, row)) for row in domain().sample(200, np.random.default_rng(1))]
    slope, _ = np.polyfit([true(w) for w in rows], [other(w) for w in rows], 1)
    apart = standard(lambda widths: other(widths) - slope * true(widths))
    rest, own = math.sqrt((1 - correlation**2) / 2), _luck(seed + 10**6)
    return (
        lambda widths: 1e3 * math.exp(correlation * true(widths) + rest * (apart(widths) + own(widths))),
        lambda widths: true(widths) + noise * luck(widths),
        true,
    )


def searched(
    folder: Path | None,
    steps: Sequence[Evaluator],
    keep: tuple[float, ...],
    *,
    trials: int,
    seed: int,
    controller: str = "random",
    on_trial: Callable[[Trial], None] | None = None,
    rules: int = 0,
) -> list[Trial]:
    """The trials of a search by a chain, or by a single evaluator; without a folder nothing is on disk.

    Uniform widths are scored first, then as many others as there are rules, drawn at random.
    """
    if folder is None:
        storage: BaseStorage = InMemoryStorage()
    else:
        folder.mkdir(exist_ok=True)
        storage = open_storage(None, folder / "journal.log")
    others = domain().sample(rules, np.random.default_rng([seed, 1])).tolist()
    session = SearchSession(
        domain(),
        make_controller(controller, domain(), seed=seed, settings={}, trials=trials),
        Ledger(storage, "search", domain().space),
        plan=[("uniform_all", domain().uniform()), *(("a rule", tuple(widths)) for widths in others)],
        trials=trials,
        seed=seed,
        on_trial=on_trial,
    )
    if len(steps) == 1:
        run(session, steps[0])
    else:
        rule = RungRule(Rungs(("",) * len(steps), keep), session)
        run(session, EvaluatorChain(None, steps=steps, keep=keep), rule)
    return session.trials
