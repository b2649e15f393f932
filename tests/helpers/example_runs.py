"""Hand-made finished runs for the tests of reports."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from autoprune.controllers.base import Trial, TrialState
from autoprune.cost.budget.budget import Budget
from autoprune.space.groups import FrozenPart, SearchSpace, WidthGroup, Widths
from autoprune.testing.spaces import chain_space
from autoprune.texts import ScoreScale
from autoprune.verdict.record import Arm, FinalTraining, RunRecord, Verdict
from autoprune.verdict.statistics import judge


def example_run(
    *,
    groups: int = 5,
    searched: int = 40,
    unit: str = "%",
    measure: str = "",
    better: bool = True,
    trained: bool = True,
    gain: float = 0.8,
    seeds: int = 3,
    names: dict[int, str] | None = None,
    frozen: tuple[FrozenPart, ...] = (),
    **changes: Any,
) -> RunRecord:
    """A run of `searched` proposals of the search, every ninth failed, whose winner beats uniform by about `gain`.

    With `better=False` the measure counts down: scores are held with the other sign.
    """
    rng = Random(0)
    scale, at = (1.0 if unit == "%" else 0.01), (0.0 if better else -1.5)
    space = _renamed(chain_space([16 * (1 + 3 * i // groups) for i in range(groups)]), names or {}, frozen)
    budget = Budget(space, {"flops": "50%"})
    full = budget.costs_of(space.full)
    uniform, inner = (
        space.uniform(0.7),
        space.nearest([w * (0.66 if i % 2 else 0.74) for i, w in enumerate(space.full)]),
    )
    drawn = [_inside(budget, space, rng) for _ in range(4 + searched)]
    origins = ["uniform_all", "uniform_inner", *["random_baseline"] * 4, *["surrogate"] * searched]
    proposals = [uniform, inner, *drawn]
    ledger = tuple(
        _trial(number, w, origin, budget.costs_of(w), at + scale * rng.gauss(70 + min(number, 40) / 20, 1.0))
        for number, (w, origin) in enumerate(zip(proposals, origins, strict=True))
    )
    winner = max((t for t in ledger[6:] if t.score is not None), key=lambda t: t.score or 0, default=ledger[0])
    chosen = [("winner", winner.widths, searched), ("uniform_all", uniform, 1), ("uniform_inner", inner, 1)]
    arms = tuple(Arm(name, w, budget.costs_of(w), at + 71.3 * scale, n) for name, w, n in chosen)
    finals = tuple(
        FinalTraining(
            arm.name, protocol, seed, 10, at + scale * (89 + seed / 5 + rng.gauss(0, 0.2) + (arm is arms[0]) * g), 9.0
        )
        for protocol, g in (("fine_tune", gain), ("scratch_e", 0.1))
        for arm in arms
        for seed in range(seeds)
    )
    given: dict[str, Any] = {
        "directory": Path("runs/digits_resnet20"),
        "job": {"model": "resnet20", "budget": {"flops": "50%"}, "output": Path("runs/digits_resnet20"), "seed": 0},
        "provenance": {"versions": {"torch": "2.9.0", "numpy": "2.4.0"}, "device": "cpu", "seconds": {"search": 61.5}},
        "space": space,
        "budget": tuple(
            {"metric": x.metric, "upper": x.upper, "full": x.full, "smallest": x.smallest} for x in budget.limits
        ),
        "full_costs": full,
        "base": {"validation": at + 91.2 * scale, "test": at + 90.8 * scale, "epochs": 30, "seconds": 80.0},
        "scale": ScoreScale(measure, unit, higher_is_better=better),
        "test_split": True,
        "trials": ledger,
        "posterior": {winner.number: (at + 71.1 * scale, 0.3 * scale)},
        "arms": arms,
        "finals": finals if trained else (),
        "verdict": _verdict(finals, ScoreScale(measure, unit, higher_is_better=better)) if trained else None,
    }
    return RunRecord(**(given | changes))


def _verdict(finals: tuple[FinalTraining, ...], scale: ScoreScale) -> Verdict:
    told = {"fine_tune": "fine-tuned", "scratch_e": "trained from scratch"}
    return judge(finals, protocols=told, budget_text="50 % of the FLOPs", scale=scale)


def _trial(number: int, widths: Widths, origin: str, costs: dict[str, float], score: float) -> Trial:
    if number % 9 == 8:
        error = "Traceback (most recent call last):\n  ...\nValueError: loss <b>is</b> nan\n"
        return Trial(number, widths, TrialState.FAILED, None, costs, origin, error=error)
    state = TrialState.PRUNED if number % 11 == 10 else TrialState.COMPLETE
    return Trial(number, widths, state, float(np.round(score, 4)), costs, origin)


def _inside(budget: Budget, space: SearchSpace, rng: Random) -> Widths:
    """Widths inside the budget, not far below it."""
    while True:
        widths = space.nearest([w * rng.uniform(0.4, 0.9) for w in space.full])
        if budget.keeps(np.array([widths]))[0]:
            return widths


def _renamed(space: SearchSpace, names: dict[int, str], frozen: tuple[FrozenPart, ...]) -> SearchSpace:
    groups = tuple(WidthGroup(names.get(i, g.name), g.width, g.choices, g.members) for i, g in enumerate(space.groups))
    return SearchSpace(groups, frozen, space.operations, space.tensors)
