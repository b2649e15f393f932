"""The tables of `evaluators.py`, and which of its claims do not hold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scoring.cost import Cost
from scoring.races import TRIALS, Raced

LIMIT = 1.15
"""So many times its passes in their fastest form may scoring a candidate take."""


def page(costs: Sequence[Cost], raced: Sequence[Raced]) -> str:
    """Both parts as markdown."""
    lines = ["# What scoring a candidate costs, and racing", ""]
    if costs:
        lines += [
            "CPU seconds on one thread, 25 % of the FLOPs; passes over the same images, of validation and calibration.",
            "",
            "| network | images | plain form | fast form | passes | passes, fastest | fast / fastest | FastNAS |",
            "|---|---|---|---|---|---|---|---|",
        ]
        lines += [_cost(cost) for cost in costs]
        lines += ["", *(f"{cost.network}: {cost.form}." for cost in costs), ""]
    if raced:
        lines += [
            f"Searches by evolution: {TRIALS} candidates scored on all validation examples, or racing for as many "
            "passes of examples. The winner by the score model, its accuracy on test examples.",
            "",
            "| problem | validation, test | plain | racing less plain | 95 % interval | searches | candidates raced |",
            "|---|---|---|---|---|---|---|",
        ]
        lines += [_race(race) for race in raced]
    return "\n".join(lines) + "\n"


def failures(costs: Sequence[Cost], raced: Sequence[Raced]) -> list[str]:
    """The claims that do not hold."""
    dear = [cost for cost in costs if cost.fast > LIMIT * cost.fastest]
    found = [f"{cost.network}: {cost.fast / cost.fastest:.2f} x its passes, more than {LIMIT}" for cost in dear]
    return found + [f"{race.problem}: racing is worse, {race.interval}" for race in raced if race.interval[1] < 0]


def _cost(cost: Cost) -> str:
    peer = "not installed" if cost.peer is None else f"{cost.peer:.2f} ({cost.peer / cost.fast:.1f} x)"
    numbers = " | ".join(f"{seconds:.2f}" for seconds in (cost.plain, cost.fast, cost.passes, cost.fastest))
    images = f"{cost.images[0]} + {cost.images[1]}"
    return f"| {cost.network} | {images} | {numbers} | {cost.fast / cost.fastest:.2f} | {peer} |"


def _race(race: Raced) -> str:
    low, high = race.interval
    mean = float(np.mean(race.differences))
    sizes = f"{race.examples[0]}, {race.examples[1]}"
    return (
        f"| {race.problem} | {sizes} | {race.plain:.2f} | {mean:+.2f} | {low:+.2f} to {high:+.2f} | "
        f"{len(race.differences)} | {race.trials:.0f} |"
    )
