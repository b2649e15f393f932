"""Greedy walks from the full network into the budget; what NetAdapt and AutoSlim have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias, final

import numpy as np

from autoprune.controllers.base import Controller, Trial
from autoprune.controllers.parts.history import History, near_best
from autoprune.controllers.parts.proposals import as_widths
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.space.groups import IntArray, Widths

Cuts: TypeAlias = Callable[[Widths, int, int | None], IntArray]
"""(widths, number of the step, steps left with this one) -> (G, G) widths: row g cuts group g only, or nothing."""

_FOR_THE_WALK = 0.8
"""Share of a search that a walk may take; the rest varies what it found."""

_FEWEST_CANDIDATES = 3
"""Groups that a step looks at in a search that is too short for more; fewer steps instead would find less."""

_DEEPEST_GUESS = 1_000


@final
@dataclass(frozen=True, slots=True)
class _Step:
    """Where a walk stands.

    Attributes:
        at: the network whose cuts are the options.
        number: of the step, from 0.
        candidates: how many groups it looks at.
        left: how many steps the search has time for, with this one; None: as many as it takes.
    """

    at: Widths
    number: int
    candidates: int
    left: int | None


@final
class GreedyWalk:
    """Steps that each score several options and go on from the best one.

    While scores are pending it goes ahead of them, as if the best option known so far had won. In a search of known
    length it takes as many steps as it has time for, each of which looks at some of the groups, drawn by the seed and
    the step, and at least at as many as there are workers. What is left to cut when time is up is cut from all alike.

    Args:
        domain: the space under its budget.
        history: scores, and what is pending.
        cuts: the options of a step.
        seed: of the groups that a step looks at, and of their order.
        steps: how many steps the walk would like to take; None: unknown.
        trials: how many proposals the search will make; None: unknown, so that every step looks at all groups.
    """

    def __init__(
        self,
        domain: BudgetedSpace,
        history: History,
        cuts: Cuts,
        *,
        seed: int,
        steps: int | None = None,
        trials: int | None = None,
    ) -> None:
        self._domain, self._history, self._cuts, self._seed = domain, history, cuts, seed
        self._wanted = steps
        self._time = None if trials is None else max(1, int(_FOR_THE_WALK * trials))
        self._handed_out = self._workers = 0
        self._now = self._step(domain.space.full, 0)
        self._known: dict[_Step, list[Widths]] = {}

    def next(self) -> Widths | None:
        """Return the next widths to score; None where the walk has ended, or every option of every step is pending."""
        self._advance()
        self._workers = max(self._workers, 1 + len(self._history.pending))
        found = next((widths for widths in self._ahead() if widths not in self._history.seen), None)
        self._handed_out += found is not None
        return found

    def _step(self, at: Widths, number: int) -> _Step:
        """A step that begins now."""
        groups = len(self._domain.space.groups)
        if self._time is None:
            return _Step(at, number, groups, None)
        remaining = max(0, self._time - self._handed_out)
        wanted = groups if self._wanted is None else remaining // max(1, self._wanted - number)
        candidates = min(groups, max(_FEWEST_CANDIDATES, self._workers, wanted))
        return _Step(at, number, candidates, remaining // candidates)

    def _advance(self) -> None:
        """Go on from the best option as long as every option of the step has its result."""
        while options := self._options(self._now):
            if any(self._history.waits_for(widths) for widths in options):
                return
            self._now = self._step(self._best(options), self._now.number + 1)

    def _ahead(self) -> Iterator[Widths]:
        """Options of this step, and of those that would follow."""
        step = self._now
        while (options := self._options(step)) and step.number - self._now.number < _DEEPEST_GUESS:
            yield from options
            left = None if step.left is None else max(0, step.left - 1)
            step = replace(step, at=self._best(options), number=step.number + 1, left=left)

    def _best(self, options: list[Widths]) -> Widths:
        """The option with the highest score; the first one where none has a score."""
        return max(options, key=lambda widths: self._history.scores.get(widths, -np.inf))

    def _options(self, step: _Step) -> list[Widths]:
        """Distinct options of a step; none inside the budget. They are remembered, as they are asked for often."""
        if step not in self._known:
            self._known[step] = self._new_options(step)
        return self._known[step]

    def _new_options(self, step: _Step) -> list[Widths]:
        here = float(self._domain.budget.usage(np.array([step.at]))[0])
        if here <= 1.0:
            return []
        rest = [as_widths(self._domain.repair(np.array([step.at]))[0])]
        if step.left == 0:
            return rest
        rows = self._cuts(step.at, step.number, step.left)
        usage = self._domain.budget.usage(rows)
        cut = np.flatnonzero((rows < np.array(step.at)).any(axis=1) & (usage < here))
        order = np.random.default_rng([self._seed, step.number]).permutation(cut)[: step.candidates]
        rows, usage = rows[order], usage[order]
        if (usage <= 1.0).any():  # the last step: fill what a coarse cut leaves of the budget
            rows[usage <= 1.0] = self._domain.repair(rows[usage <= 1.0])
        return list(dict.fromkeys(map(as_widths, rows))) or rest


class GreedyController(Controller):
    """A walk from the full network into the budget, then variations of the best that it found.

    Proposals before the last step exceed the budget. A subclass says what a step may cut, and how many steps it takes.

    Args:
        domain: the space under its budget.
        seed: of the order of the groups, and of variations of what is found.
        trials: how many proposals the search will make, where that is known.
        steps: how many steps the walk would like to take.
    """

    keeps_budget = False

    def __init__(self, domain: BudgetedSpace, *, seed: int, trials: int | None, steps: int) -> None:
        self._domain = domain
        self._rng = np.random.default_rng(seed)
        self._history = History(domain)
        self._walk = GreedyWalk(domain, self._history, self._cuts, seed=seed, steps=steps, trials=trials)

    @abstractmethod
    def _cuts(self, at: Widths, step: int, left: int | None) -> IntArray:
        """(G, G) options of a step, see `Cuts`."""

    @final
    def ask(self, n: int = 1) -> list[Widths]:
        """Return `n` options of this step or of those to come, and variations of the best once all are known."""
        return [
            self._history.mark(self._walk.next() or near_best(self._domain, self._history, self._rng)) for _ in range(n)
        ]

    @final
    def tell(self, trials: Sequence[Trial]) -> None:
        """Remember the scores."""
        self._history.tell(trials)


def largest_choices(domain: BudgetedSpace, bounds: IntArray) -> IntArray:
    """Return (G,) the largest choice of each group that is at most its (G,) bound; the smallest where none is."""
    found = []
    for group, bound in zip(domain.space.groups, bounds, strict=True):
        index = int(np.searchsorted(group.choices, bound, side="right")) - 1
        found.append(group.choices[max(index, 0)])
    return np.array(found)
