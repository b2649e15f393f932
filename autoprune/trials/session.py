"""The search on one page: propose, price, write down, evaluate somewhere, write down, learn.

Engines drive a session through `ask` and `tell`; a session knows no engine. Resuming replays the ledger through a
fresh controller: same seed and same calls give the same proposals, so a killed run goes on as if it had not been. In
a long search a snapshot of the controller stands for the replay of what came before it.
"""

from __future__ import annotations

import operator
from bisect import insort
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, final

import numpy as np

from autoprune.allocation import UNIFORM
from autoprune.controllers.base import Controller, Trial, TrialState
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import ConfigError, EvaluationError, RunError, SpaceError, shortened, told_of_traceback
from autoprune.evaluators.base import MOST_FOLLOWED
from autoprune.space.groups import Widths
from autoprune.tasks.score import Score
from autoprune.trials.assignment import Assignment, Outcome, score_of
from autoprune.trials.ledger import Ledger
from autoprune.trials.snapshots import Snapshots

HOPELESS = 10
"""If this many first trials all fail, the search stops: the fault is not a candidate's."""


@final
class SearchSession:
    """One search: planned proposals first, then the controller's.

    Args:
        domain: the space under its budget.
        controller: proposes once the plan is used up.
        ledger: keeps every trial; what it already holds is replayed.
        plan: (origin, widths) to be scored first: uniform, allocations, random baselines.
        trials: number of the controller's proposals.
        seed: evaluators' seeds derive from it.
        on_trial: called after each trial that ends, not for those replayed.
        remembered: widths -> a score from elsewhere, None where there is none; such widths are not handed out.
        snapshots: of the controller; None: everything is replayed.
        over: asked before each proposal whether the search is to end with the trials so far. Then only what a verdict
            needs is still handed out: the uniform baselines, and something to compare them with.

    Raises:
        RunError: the replay proposes other widths than the ledger holds.
    """

    def __init__(
        self,
        domain: BudgetedSpace,
        controller: Controller,
        ledger: Ledger,
        *,
        plan: Sequence[tuple[str, Widths]],
        trials: int,
        seed: int,
        on_trial: Callable[[Trial], None] | None = None,
        remembered: Callable[[Widths], float | Score | None] = lambda widths: None,
        snapshots: Snapshots | None = None,
        over: Callable[[], bool] = lambda: False,
    ) -> None:
        self._domain = domain
        self._controller = controller
        self._ledger = ledger
        self._plan = list(plan)
        self._seed = seed
        self._on_trial = on_trial
        self._remembered = remembered
        self._over = over
        self._snapshots = snapshots
        self.total = len(self._plan) + trials
        self.trials: list[Trial] = []  # ended, in the order in which they were told
        self._proposals: list[Assignment] = []
        self._waiting: deque[Assignment] = deque()  # started before a kill, not ended
        self._scores: dict[Widths, Score] = {}
        self._rivals_out: set[int] = set()  # handed out and not told, of what is no uniform baseline
        self._ranked: list[tuple[float, int, Widths]] = []  # inside the budget: -score, when, widths
        self._highest: dict[bool, float] = {}  # raw scores inside the budget, of uniform baselines (True) and others
        self._replay()

    def ask(self) -> Assignment | None:
        """Return the next proposal to evaluate, or None when all have been handed out.

        Widths that have a score already are told at once; those still under evaluation may be handed out again.
        """
        while (assignment := self._next()) is not None:
            known = self._scores.get(assignment.widths, self._remembered(assignment.widths))
            if known is None:
                break
            self.tell(assignment, Outcome.of(known))
        return assignment

    def tell(self, assignment: Assignment, outcome: Outcome) -> Trial:
        """Write down an ended evaluation and let the controller learn from it.

        Raises:
            EvaluationError: every one of the first trials failed.
        """
        trial = self._ledger.finish(assignment, outcome)
        self._rivals_out.discard(assignment.number)
        self._learn(trial)
        if self._snapshots is not None:
            self._snapshots.write(self._controller, self._proposals, self.trials)
        if self._on_trial is not None:
            self._on_trial(trial)
        if len(self.trials) >= min(HOPELESS, self.total) and all(t.state is TrialState.FAILED for t in self.trials):
            raise EvaluationError(
                f"{told_of_traceback(self.trials[0].error or '')}; so ended the first of {len(self.trials)} "
                f"candidates, and none could be scored. Check the score function, the training settings and the base "
                f"network, then resume the run; tracebacks are in the ledger"
            )
        return trial

    @property
    def domain(self) -> BudgetedSpace:
        """The space under its budget."""
        return self._domain

    @property
    def best(self) -> float | None:
        """Highest raw score inside the budget so far of what is not a uniform baseline."""
        return self._highest.get(False)

    @property
    def uniform(self) -> float | None:
        """Highest raw score so far of the uniform baselines."""
        return self._highest.get(True)

    @property
    def proposed(self) -> int:
        """How many proposals were made so far."""
        return len(self._proposals)

    def _next(self) -> Assignment | None:
        over = self._over()
        waiting = next((one for one in self._waiting if not over or self._needed(one.origin)), None)
        if waiting is not None:
            self._waiting.remove(waiting)
            return self._out(waiting)
        if len(self._proposals) >= self.total or (over and not self._needed(self._origin(len(self._proposals)))):
            return None
        assignment = self._propose()
        self._ledger.start(assignment)
        return self._out(assignment)

    def _needed(self, origin: str) -> bool:
        """Whether a verdict needs the next proposal of this origin."""
        return origin in UNIFORM or (self.best is None and not self._rivals_out)

    def _out(self, assignment: Assignment) -> Assignment:
        if assignment.origin not in UNIFORM:
            self._rivals_out.add(assignment.number)
        return assignment

    def _origin(self, number: int) -> str:
        return self._plan[number][0] if number < len(self._plan) else "controller"

    def _propose(self) -> Assignment:
        number = len(self._proposals)
        origin = self._origin(number)
        widths = self._plan[number][1] if number < len(self._plan) else self._asked()
        costs, seed = self._domain.budget.costs_of(widths), self._seed_of(number)
        self._proposals.append(Assignment(number, widths, origin, seed, len(self.trials), costs, self._incumbents))
        return self._proposals[-1]

    def _asked(self) -> Widths:
        """What the controller proposes; raises ConfigError where that is no member of the space."""
        given: Any = self._controller.ask(1)
        try:
            (widths,) = given
            return self._domain.space.check([operator.index(width) for width in widths])
        except (TypeError, ValueError, SpaceError) as error:
            raise ConfigError(
                f"controller {type(self._controller).__name__} must propose a list of one tuple of allowed widths, got "
                f"{shortened(repr(given), 200)} ({shortened(str(error), 200)}). Correct its code"
            ) from error

    def _seed_of(self, number: int) -> int:
        return int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0])

    def _learn(self, trial: Trial, *, known: bool = False) -> None:
        """Take in a trial, which the controller may know already."""
        self.trials.append(trial)
        score = score_of(trial)
        if trial.state is TrialState.COMPLETE and score is not None:
            self._scores[trial.widths] = score
            if self._domain.feasible(np.array([trial.widths]))[0]:  # some controllers walk to the budget from above
                uniform = trial.origin in UNIFORM
                self._rank(float(score), trial.widths)
                self._highest[uniform] = max(float(score), self._highest.get(uniform, float(score)))
        if not known:
            self._controller.tell([trial])

    def _restore(self, proposals: Sequence[Assignment], ended: Sequence[Trial]) -> None:
        """Become what the session was at the last snapshot of its controller, where there is one of this ledger."""
        found = self._snapshots.read(self._controller, proposals, ended) if self._snapshots else None
        if found is None:
            return
        before, planned = proposals[: found.asked], [widths for _, widths in self._plan]
        if [one.seed for one in before] != [self._seed_of(number) for number in range(len(before))]:
            return  # the replay says what differs, here and below
        if [one.widths for one in before[: len(planned)]] != planned[: len(before)]:
            return
        made = [one.widths for one in before[len(planned) :]]
        if self._controller.restore(found.state, made, ended[: found.told]):
            for one in before:
                while len(self.trials) < one.told:
                    self._learn(ended[len(self.trials)], known=True)
                self._proposals.append(replace(one, incumbents=self._incumbents))
            for trial in ended[len(self.trials) : found.told]:
                self._learn(trial, known=True)

    @property
    def _incumbents(self) -> tuple[Widths, ...]:
        return tuple(widths for _, _, widths in self._ranked)

    def _rank(self, score: float, widths: Widths) -> None:
        """Keep the best few candidates in order; of equal ones the first."""
        if all(known != widths for _, _, known in self._ranked):
            insort(self._ranked, (-score, len(self.trials), widths))
            del self._ranked[MOST_FOLLOWED:]

    def _replay(self) -> None:
        ended, recordings = self._ledger.trials(), self._ledger.proposals()
        self._restore([recorded for recorded, _ in recordings], ended)
        restored = len(self._proposals)
        ends = [has_ended for _, has_ended in recordings[:restored]]
        self._waiting.extend(one for one, has_ended in zip(self._proposals, ends, strict=True) if not has_ended)
        for recorded, has_ended in recordings[restored:]:
            while len(self.trials) < recorded.told:
                self._learn(ended[len(self.trials)])
            proposed = self._propose()
            if proposed.widths != recorded.widths or proposed.seed != recorded.seed:
                raise RunError(
                    f"resuming diverged at trial {recorded.number}: the ledger holds widths {recorded.widths}, "
                    f"the replay proposes {proposed.widths}; autoprune, numpy, scipy or optuna changed since the run "
                    f"began. Install the versions named in run.json, or start a new run"
                )
            if not has_ended:
                self._waiting.append(replace(recorded, incumbents=proposed.incumbents))
        for trial in ended[len(self.trials) :]:
            self._learn(trial)
