"""Which controller finds most: searches replayed on a table of trained networks, and on synthetic scores.

    python benchmarks/channel_bench.py TABLE.json [--controllers a,b] [--evaluations 50,100] [--repeats 60] [--json]
    python benchmarks/channel_bench.py TABLE.json --redraw
    python benchmarks/channel_bench.py --synthetic 20,60,200

A table (such as Channel-Bench-Macro's Results_ResNet.json) has every width vector trained with several seeds: the
search sees the accuracy of one random seed per row, its answer is judged by the others, as the difference to uniform
widths at the same FLOPs. The answer of autoprune has the surest lead over uniform; that of every peer is its highest
score, and beside it what autoprune's choice makes of the peer's trials.

All repetitions share the table's trainings, so a row that was lucky is lucky in all of them, and no number of
repetitions averages that out. `--redraw` draws the trainings anew in every repetition, from a model of the whole table.

Writes OUT.md and OUT.png; `--json` prints the numbers; `--keep FILE` has every replay, and runs only what it lacks.
Ends with an error if the default controller does not hold its claims (`_claims`).
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import platform
import sys
import warnings
from collections.abc import Iterator, Sequence
from multiprocessing.pool import Pool
from pathlib import Path

import numpy as np
from search_problems.channel_table import RedrawnProblem, Table, TableProblem
from search_problems.comparison import difference
from search_problems.kept import KeptReplays
from search_problems.page import OURS, Replays, picture, row_luck, section
from search_problems.problem import Problem
from search_problems.replay import HIGHEST, PROBABLE, Replay, replay
from search_problems.synthetic import FAMILIES, SyntheticProblem
from threadpoolctl import threadpool_limits

from autoprune.controllers import CONTROLLERS

OPTUNAS = ("optuna:TPESampler", "optuna:CmaEsSampler", "optuna:GPSampler", "optuna:NSGAIISampler")
PEERS = ("random", "evolution", *OPTUNAS)
"""What the claims are against."""
SLOW = {"optuna:GPSampler": 50}
"""Most evaluations that a controller is asked for: a search of twice as many takes it four times as long."""
OUT = Path(__file__).parent.parent / "docs" / "results" / "channel_bench"

_PROBLEMS: list[Problem] = []
"""Known to the worker processes from their birth: functions cannot be sent."""


def main() -> int:
    """Replay, write, print; 1 where a claim does not hold."""
    options = _options()
    problems = _problems(options)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    results: dict[str, dict[str, list[Replay]]] = {}
    kept = KeptReplays(options.keep)
    _PROBLEMS.extend(problems)
    with multiprocessing.get_context("fork").Pool(options.jobs, initializer=_alone) as pool:
        for index, problem in enumerate(problems):
            for name in options.controllers:
                results.setdefault(problem.name, {})[name] = _replays(pool, index, name, options, kept)
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
    parser.add_argument("--controllers", type=lambda text: text.split(","), default=[*CONTROLLERS.names(), *OPTUNAS])
    parser.add_argument("--evaluations", type=numbers, default=[20, 50, 100])
    parser.add_argument("--repeats", type=int, default=60)
    parser.add_argument("--digits", type=numbers, default=[2, 3], help="budgets: the FLOPs of these uniform rows")
    parser.add_argument("--redraw", action="store_true", help="train every row anew in each repetition")
    parser.add_argument("--synthetic", type=numbers, default=[], help="numbers of groups of the synthetic problems")
    parser.add_argument("--families", type=lambda text: text.split(","), default=list(FAMILIES), help="of those")
    parser.add_argument("--jobs", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("--json", action="store_true", help="print JSON instead of the page")
    parser.add_argument("--keep", type=Path, help="a file of replays, of one table and state of the code; adds to it")
    parser.add_argument("--out", type=Path, default=OUT, help="where to write, without suffix")
    options = parser.parse_args()
    if unknown := set(options.families) - set(FAMILIES):
        parser.error(f"unknown families {', '.join(sorted(unknown))}; there are {', '.join(FAMILIES)}")
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


def _problems(options: argparse.Namespace) -> list[Problem]:
    problems: list[Problem] = []
    if options.table:
        rows = Table(options.table)
        kind = RedrawnProblem if options.redraw else TableProblem
        problems += [kind(rows, digit) for digit in options.digits]
    problems += [SyntheticProblem(family, n) for n in options.synthetic for family in options.families]
    if not problems:
        raise SystemExit("give a TABLE.json, or --synthetic 20,60,200")
    return problems


def _replays(pool: Pool, index: int, name: str, options: argparse.Namespace, kept: KeptReplays) -> list[Replay]:
    """All repetitions of one controller on one problem; only those that are not known are run."""
    problem, most = _PROBLEMS[index].name, SLOW.get(name, max(options.evaluations))
    evaluations = [n for n in options.evaluations if n <= most] or [most]
    missing = [seed for seed in range(options.repeats) if kept.get(problem, name, evaluations, seed) is None]
    work = functools.partial(_one, index, name, evaluations)
    for seed, found in zip(missing, pool.imap(work, missing), strict=True):
        kept.add(problem, name, evaluations, seed, found)
    found_or_kept = (kept.get(problem, name, evaluations, seed) for seed in range(options.repeats))
    return [each for each in found_or_kept if each is not None]


def _alone() -> None:
    threadpool_limits(1)
    warnings.simplefilter("ignore")  # Optuna's experimental samplers warn once per object


def _one(index: int, controller: str, evaluations: Sequence[int], seed: int) -> Replay:
    return replay(_PROBLEMS[index], controller, evaluations, seed)


def _checks(
    problems: Sequence[Problem], results: dict[str, dict[str, list[Replay]]], evaluations: Sequence[int]
) -> list[tuple[str, bool]]:
    """The claims on every problem, each with whether it holds."""
    checks = []
    for problem in problems:
        found = results.get(problem.name, {})
        if OURS in found:
            checks += [(f"{problem.name}: {told}", holds) for told, holds in _claims(problem, found, evaluations)]
    return checks


def _claims(problem: Problem, found: Replays, evaluations: Sequence[int]) -> Iterator[tuple[str, bool]]:
    """Of one problem.

    With one choice of the winner for all, proposals are at least as good as every peer's, to two standard errors, in
    which the luck of rows counts. On trainings drawn anew, answers beat each peer's own. A search that is ended after
    20 of 100 evaluations has an answer that is no worse than uniform by more than its standard error. On the table as
    it is, most of what can be gained is.
    """
    luck = row_luck(problem)
    for n in (n for n in (50, 100) if n in evaluations):
        for name in (name for name in PEERS if name in found and n in found[name][0].answers):
            gap = difference(found[OURS], found[name], n, PROBABLE, luck)
            told = f"proposals of {OURS} against {name} at {n} evaluations: {gap.errors_with_luck:+.1f} standard errors"
            yield told, gap.errors_with_luck >= -2.0
            if isinstance(problem, RedrawnProblem):
                gap = difference(found[OURS], found[name], n, HIGHEST, luck)
                yield f"{OURS} beats {name} at {n} evaluations by {gap.errors:.1f} standard errors", gap.errors > 2.0
    if 20 in evaluations and max(evaluations) == 100:
        gains = np.array([replay.answers[20][PROBABLE].expected for replay in found[OURS]])
        error = float(gains.std(ddof=1) / np.sqrt(len(gains))) if len(gains) > 1 else np.nan
        yield f"{OURS} after 20 of 100: {gains.mean():+.3f} ± {error:.3f} over uniform", gains.mean() >= -error
    if isinstance(problem, TableProblem) and 100 in evaluations:  # uniform's luck is a part of that ceiling
        share = float(np.mean([r.answers[100][PROBABLE].gain for r in found[OURS]])) / problem.ceiling
        yield f"{OURS} reaches {share:.0%} of the ceiling's gain with 100 evaluations", share >= 0.8


def _page(problems: Sequence[Problem], results: dict[str, dict[str, list[Replay]]], options: argparse.Namespace) -> str:
    parts = [
        "# What controllers find",
        f"{platform.machine()}, Python {platform.python_version()}. Gains over uniform widths of the same cost, mean ± "
        f"standard error, after so many evaluations; noise as in one training. “Highest score” is the usual answer of "
        f"a search, “surest lead” is how `autoprune search` picks its own.",
    ]
    checks = _checks(problems, results, options.evaluations)
    if checks:
        parts.append("\n".join(f"- {'holds' if holds else 'DOES NOT HOLD'}: {text}" for text, holds in checks))
    parts.append(f"![regret]({options.out.name}.png)")
    for problem in (problem for problem in problems if problem.name in results):
        parts += section(problem, results[problem.name], options.evaluations)
    return "\n\n".join(parts) + "\n"


def _as_json(problems: Sequence[Problem], results: dict[str, dict[str, list[Replay]]]) -> str:
    def gains(runs: Sequence[Replay]) -> dict[str, object]:
        evaluations = list(runs[0].answers)
        told: dict[str, object] = {
            answer.replace(" ", "_"): {n: [r.answers[n][answer].gain for r in runs] for n in evaluations}
            for answer in (HIGHEST, PROBABLE)
        }
        told["without_luck"] = {n: [r.answers[n][PROBABLE].expected for r in runs] for n in evaluations}
        return told | {"milliseconds_per_trial": [r.milliseconds for r in runs]}

    content = {
        problem.name: {
            "ceiling": problem.ceiling,
            "unit": problem.unit,
            "gains": {name: gains(runs) for name, runs in results[problem.name].items()},
        }
        for problem in problems
    }
    return json.dumps(content)


if __name__ == "__main__":
    sys.exit(main())
