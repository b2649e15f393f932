"""Which controller finds most: searches replayed on a table of trained networks, and on synthetic scores.

    python benchmarks/channel_bench.py TABLE.json [--controllers a,b] [--evaluations 50,100] [--repeats 60] [--json]
    python benchmarks/channel_bench.py --synthetic 20,60,200

A table (such as Channel-Bench-Macro's Results_ResNet.json) has every width vector trained with several seeds: the
search sees the accuracy of one random seed per row, its answer is judged by the others, as the difference to uniform
widths at the same FLOPs. The answer of autoprune is the highest posterior mean; that of every peer is its highest
score, and beside it what autoprune's choice makes of the peer's trials. Writes OUT.md and OUT.png; `--json` prints
the numbers. Ends with an error if the default controller does not hold its claims on the table.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import platform
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from search_problems.channel_table import Table, TableProblem
from search_problems.page import OURS, beaten, claims, picture, table, without_luck
from search_problems.problem import Problem
from search_problems.replay import Replay, replay
from search_problems.synthetic import FAMILIES, SyntheticProblem
from threadpoolctl import threadpool_limits

from autoprune.controllers import CONTROLLERS

PEERS = ("optuna:TPESampler", "optuna:CmaEsSampler", "optuna:GPSampler", "optuna:NSGAIISampler")
SLOW = {"optuna:GPSampler": 50, "amc": 50}
"""Controllers that are asked for fewer evaluations: theirs take a tenth of a second each, and more with every one."""
MUST_BEAT = ("random", "evolution", "optuna:TPESampler", "optuna:CmaEsSampler", "optuna:NSGAIISampler")
_PROBLEMS: list[Problem] = []
"""Known to the worker processes from their birth: functions cannot be sent."""

OUT = Path(__file__).parent.parent / "docs" / "results" / "channel_bench"


def main() -> int:
    """Replay, write, print; 1 where a claim does not hold."""
    options = _options()
    problems: list[Problem] = []
    if options.table:
        rows = Table(options.table)
        problems += [TableProblem(rows, digit) for digit in options.digits]
    problems += [SyntheticProblem(family, n) for n in options.synthetic for family in FAMILIES]
    if not problems:
        raise SystemExit("give a TABLE.json, or --synthetic 20,60,200")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    results: dict[str, dict[str, list[Replay]]] = {problem.name: {} for problem in problems}
    _PROBLEMS.extend(problems)
    with multiprocessing.get_context("fork").Pool(options.jobs, initializer=_alone) as pool:
        for index, problem in enumerate(problems):
            for name in options.controllers:
                counts = [n for n in options.evaluations if n <= SLOW.get(name, n)]
                work = functools.partial(_one, index, name, counts)
                results[problem.name][name] = pool.map(work, range(options.repeats), chunksize=1)
                print(f"{problem.name}: {name} done", file=sys.stderr, flush=True)
                text = _page(problems, results, options)  # written as it grows: the whole takes an hour
                options.out.with_suffix(".md").write_text(text, encoding="utf-8")
    picture(results, {problem.name: problem for problem in problems}, options.out.with_suffix(".png"))
    print(_as_json(problems, results) if options.json else text)
    return 0 if all(holds for _, holds in _checks(problems, results, options.evaluations)) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    numbers = functools.partial(_numbers, parser)
    parser.add_argument("table", type=Path, nargs="?", help="a table of trained networks")
    parser.add_argument("--controllers", type=lambda text: text.split(","), default=[*CONTROLLERS.names(), *PEERS])
    parser.add_argument("--evaluations", type=numbers, default=[20, 50, 100, 200])
    parser.add_argument("--repeats", type=int, default=60)
    parser.add_argument("--digits", type=numbers, default=[2, 3], help="budgets: the FLOPs of these uniform rows")
    parser.add_argument("--synthetic", type=numbers, default=[], help="numbers of groups of the synthetic problems")
    parser.add_argument("--jobs", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("--json", action="store_true", help="print JSON instead of the page")
    parser.add_argument("--out", type=Path, default=OUT, help="where to write, without suffix")
    options = parser.parse_args()
    options.controllers.sort(key=lambda name: name != OURS)
    return options


def _numbers(parser: argparse.ArgumentParser, text: str) -> list[int]:
    try:
        numbers = sorted({int(part) for part in text.split(",")})
    except ValueError:
        parser.error(f"{text!r}: give whole numbers with commas")
    if numbers[0] < 1:
        parser.error(f"{text!r}: must be at least 1")
    return numbers


def _alone() -> None:
    threadpool_limits(1)
    warnings.simplefilter("ignore")  # Optuna's experimental samplers warn once per object


def _one(index: int, controller: str, evaluations: Sequence[int], seed: int) -> Replay:
    return replay(_PROBLEMS[index], controller, evaluations, seed)


def _checks(
    problems: Sequence[Problem], results: dict[str, dict[str, list[Replay]]], evaluations: Sequence[int]
) -> list[tuple[str, bool]]:
    """The claims on the table's first budget, each with whether it holds."""
    first = problems[0]
    found = results[first.name]
    if not isinstance(first, TableProblem) or OURS not in found:
        return []
    checks = []
    for n in (n for n in (50, 100) if n in evaluations):
        for name in (name for name in MUST_BEAT if name in found):
            errors = beaten(found, name, n)
            checks.append((f"{OURS} beats {name} at {n} evaluations by {errors:.1f} standard errors", errors > 2.0))
    if 100 in evaluations:
        share = float(np.mean([r.modelled[100] for r in found[OURS]])) / first.ceiling
        checks.append((f"{OURS} reaches {share:.0%} of the ceiling's gain with 100 evaluations", share >= 0.8))
    return checks


def _page(problems: Sequence[Problem], results: dict[str, dict[str, list[Replay]]], options: argparse.Namespace) -> str:
    parts = [
        "# What controllers find",
        f"{options.repeats} repeats each, {platform.machine()}, Python {platform.python_version()}. Gains over uniform "
        f"widths of the same cost, mean ± standard error, after so many evaluations; noise as in one training. "
        f"“Highest score” is the usual answer of a search, “posterior mean” is how `autoprune search` picks its own.",
    ]
    checks = _checks(problems, results, options.evaluations)
    parts += (
        ["\n".join(f"- {'holds' if holds else 'DOES NOT HOLD'}: {text}" for text, holds in checks)] if checks else []
    )
    parts.append(f"![regret]({options.out.name}.png)")
    for problem in (problem for problem in problems if results[problem.name]):
        parts.append(f"## {problem.name[0].upper()}{problem.name[1:]}")
        if isinstance(problem, TableProblem):
            parts.append(
                f"Uniform's own trainings came out {problem.luck:.3f} points below what a quadratic model of all rows "
                f"says of it; every gain below, and the ceiling, has this much of luck in it."
            )
        parts.append(table(problem, results[problem.name], options.evaluations))
        parts.append("\n".join(claims(results[problem.name], options.evaluations)))
        if isinstance(problem, TableProblem):
            parts.append(
                "The same answers by the quadratic model of all rows, uniform's included. A row has few trainings, and "
                "searches with different noise answer with the same rows: what a lucky row adds above is in no "
                "standard error, and is averaged out here."
            )
            parts.append(without_luck(results[problem.name], options.evaluations))
    return "\n\n".join(part for part in parts if part) + "\n"


def _as_json(problems: Sequence[Problem], results: dict[str, dict[str, list[Replay]]]) -> str:
    content = {
        problem.name: {
            "ceiling": problem.ceiling,
            "unit": problem.unit,
            "gains": {
                name: {
                    "highest_score": {n: [r.best[n] for r in runs] for n in runs[0].best},
                    "posterior_mean": {n: [r.modelled[n] for r in runs] for n in runs[0].modelled},
                    "without_luck": {n: [r.expected[n] for r in runs] for n in runs[0].expected},
                    "milliseconds_per_trial": [r.milliseconds for r in runs],
                }
                for name, runs in results[problem.name].items()
            },
        }
        for problem in problems
    }
    return json.dumps(content)


if __name__ == "__main__":
    sys.exit(main())
