"""When do rungs pay? Searches of equal cost, on problems whose cheap score agrees with what counts as far as told.

    python benchmarks/rungs_synthetic.py [--problems 10] [--correlations 0.5 0.7 0.9] [--candidates 221 663]
                                         [--jobs 1] [--write docs/results/rungs_synthetic.md]

Costs are those of `rungs.py`: a score after a short training costs as much as 8.3 cheap ones, five short trainings
choose its learning rate, and eight candidates, uniform widths and one-shot rules, are trained whatever they score.
Searches of one problem, by the default controller:

- plain: by the cheap score alone, as many candidates as the others' cost allows;
- a third: of few candidates goes on to the score that counts, which is what `chain` does where nobody says;
- equal: of more candidates so many go on that both rungs cost the same.

The truth is one of the synthetic functions of 20 groups on which controllers are compared. The score that counts is
the truth with the noise of a training. The cheap one is on another scale; half of what it is off by is noise, half
follows the widths by a law of its own. Compared are the true scores of the winners. Ends with an error where rungs are
behind by more than the interval.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
from optuna.storages import InMemoryStorage
from reconstruction.kept import half_width, interval
from search_problems.synthetic import FAMILIES, SyntheticProblem

from autoprune.controllers import make_controller
from autoprune.controllers.base import Trial
from autoprune.engines.local import run
from autoprune.engines.rungs import RungRule
from autoprune.evaluators.base import Evaluator
from autoprune.evaluators.chain import EvaluatorChain
from autoprune.evaluators.rungs import USUAL, Rungs
from autoprune.space.groups import FloatArray, IntArray, Widths
from autoprune.texts import ScoreScale
from autoprune.training.watch import Watch
from autoprune.trials.ledger import Ledger
from autoprune.trials.selection import shortlist, sure_leads
from autoprune.trials.session import SearchSession

GROUPS = 20
COST, RATES, RULES = 8.3, 5, 7
NOISE = 0.3
"""Of a short training, in deviations of random networks: on ResNet-20 about 0.8 points where those differ by 3."""

ARMS = {"a third": USUAL, "equal": 1 / COST}
"""Share that goes on."""

_Scores = Callable[[IntArray], FloatArray]
_Score = Callable[[Widths], float]

ABOUT = f"""# Rungs on synthetic problems

By how much the winner of a search is above uniform widths, in standard deviations of random networks on the budget;
mean and 95 % interval over problems of {GROUPS} groups. A score that counts costs {COST} cheap ones; searches with
rungs have as many candidates as make up the cost of the plain one, and what they did cost beside it is told. Made by
`benchmarks/rungs_synthetic.py`.

| correlation | plain candidates | goes on | of | problems | plain | rungs | rungs less plain | cost |
|---|---|---|---|---|---|---|---|---|"""


@final
@dataclass(frozen=True)
class Found:
    """By how much winners are above uniform widths, and the cost beside that of the plain search, which has so many."""

    correlation: float
    candidates: int
    arm: str
    plain: float
    rungs: float
    cost: float


@final
class Counted(Evaluator):
    """A score of widths that counts how often it is asked for."""

    scale = ScoreScale("a synthetic score")

    def __init__(self, score: _Score) -> None:
        self._score, self.calls = score, 0

    def evaluate(self, widths: Widths, *, seed: int, full: bool = False, watch: Watch | None = None) -> float:
        """See `Evaluator.evaluate`."""
        self.calls += 1
        return self._score(widths)


def main() -> int:
    """Search all problems, print the table; 1 where the claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=10, help="of each family")
    parser.add_argument("--correlations", type=float, nargs="+", default=[0.5, 0.7, 0.9])
    parser.add_argument("--candidates", type=int, nargs="+", default=[221, 663], help="of plain searches")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--write", type=Path, help="a markdown file for the results")
    options = parser.parse_args()
    problems = [(family, n) for family in FAMILIES for n in range(options.problems)]
    cells = [(c, m, *problem) for m in options.candidates for c in options.correlations for problem in problems]
    found: list[Found] = []
    with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
        for of_problem in pool.imap(_searches, cells):
            found += of_problem
            print(*of_problem, sep="\n", file=sys.stderr, flush=True)
    text, behind = page(found)
    print(text)
    if options.write is not None:
        options.write.write_text(text)
    print("\n".join(behind), file=sys.stderr)
    return 1 if behind else 0


def page(found: Sequence[Found]) -> tuple[str, list[str]]:
    """The results as markdown, and where rungs are behind by more than the interval."""
    lines, behind = [ABOUT], []
    for kind in sorted({(one.correlation, one.candidates, one.arm) for one in found}):
        own = [one for one in found if (one.correlation, one.candidates, one.arm) == kind]
        correlation, candidates, arm = kind
        less = [one.rungs - one.plain for one in own]
        plain, rungs = (interval([getattr(one, name) for one in own], sign="+") for name in ("plain", "rungs"))
        cost = f"{np.mean([one.cost for one in own]):.2f}"
        of = trials(arm, candidates)
        cells = (f"{correlation:g}", candidates, arm, of, len(own), plain, rungs, interval(less, sign="+"), cost)
        lines.append(f"| {' | '.join(map(str, cells))} |")
        if len(less) > 1 and float(np.mean(less)) < -half_width(less):
            behind.append(f"correlation {correlation:g}, {candidates} candidates, {arm}: rungs are behind")
    return "\n".join(lines) + "\n", behind


def trials(arm: str, plain: int) -> int:
    """Candidates of a search with rungs that costs as much as a plain one, beside uniform widths and rules."""
    return round((plain - COST * (RATES + RULES + 1)) / (1 + COST * ARMS[arm]))


def _searches(cell: tuple[float, int, str, int]) -> list[Found]:
    """All searches of one problem."""
    correlation, candidates, family, number = cell
    problem = SyntheticProblem(family, GROUPS, seed=1000 + number)
    cheap, counting, true = _scores(problem, correlation, number)
    plain = true(_searched(problem, [Counted(cheap)], candidates, number))
    found = []
    for arm, share in ARMS.items():
        steps = [Counted(cheap), Counted(counting)]
        winner = _searched(problem, steps, trials(arm, candidates), number, share)
        cost = (steps[0].calls + COST * (steps[1].calls + RATES)) / (candidates + 1 + RULES)
        found.append(Found(correlation, candidates, arm, plain, true(winner), cost))
    return found


def _scores(problem: SyntheticProblem, correlation: float, seed: int) -> tuple[_Score, _Score, _Score]:
    """The cheap score, the one that counts, and the truth, which is 0 for uniform widths."""
    rng = np.random.default_rng([seed, 5])
    rows = problem.domain.sample(512, rng)
    weights, full = rng.standard_normal(GROUPS), np.array(problem.domain.space.full)
    true = _standard(problem.truth, rows)
    law = _standard(lambda widths: (np.log(widths / full) + np.log(widths / full) ** 2) @ weights, rows)
    slope = float(np.mean(law(rows) * true(rows)))
    apart = _standard(lambda widths: law(widths) - slope * true(widths), rows)
    rest = math.sqrt((1 - correlation**2) / 2)

    def luck(kind: int, widths: Widths) -> float:
        return float(np.random.default_rng([seed, kind, *widths]).standard_normal())

    def cheap(widths: Widths) -> float:
        row = np.array([widths])
        smooth = correlation * float(true(row)[0]) + rest * float(apart(row)[0])
        return 10.0 * math.exp(0.3 * (smooth + rest * luck(0, widths)))

    def counting(widths: Widths) -> float:
        return float(true(np.array([widths]))[0]) + NOISE * luck(1, widths)

    uniform = float(true(np.array([problem.uniform]))[0])
    return cheap, counting, lambda widths: float(true(np.array([widths]))[0]) - uniform


def _standard(scores: _Scores, rows: IntArray) -> _Scores:
    """The same with mean 0 and deviation 1 over the rows."""
    values = scores(rows)
    level, spread = float(values.mean()), float(values.std())
    return lambda widths: (scores(widths) - level) / spread


def _searched(
    problem: SyntheticProblem, steps: Sequence[Counted], trials: int, seed: int, share: float = 1.0
) -> Widths:
    """The winner of a search by a chain, or by a single evaluator."""
    domain = problem.domain
    rules = domain.sample(RULES, np.random.default_rng([seed, 6])).tolist()
    first = [("uniform_all", problem.uniform), *(("a rule", tuple(widths)) for widths in rules)]
    proposer = make_controller("surrogate", domain, seed=seed, settings={}, trials=trials)
    ledger = Ledger(InMemoryStorage(), "search", domain.space)
    session = SearchSession(domain, proposer, ledger, plan=first, trials=trials, seed=seed)
    if len(steps) == 1:
        run(session, steps[0])
    else:
        rule = RungRule(Rungs(("cheap", "counting"), (share,)), session)
        run(session, EvaluatorChain(None, steps=steps, keep=(share,)), rule)
    return _winner(problem, session.trials)


def _winner(problem: SyntheticProblem, trials: list[Trial]) -> Widths:
    baselines = (problem.uniform,)
    leads = sure_leads(problem.domain, trials, baselines)
    return shortlist(leads, 1, problem.domain, baselines)[0]


if __name__ == "__main__":
    sys.exit(main())
