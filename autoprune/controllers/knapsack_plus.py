"""The best network of an additive table, then a search near it: this package, from Puzzle, HALP and EvoPress.

Puzzle (arXiv 2411.19146, section 3) scores alternatives one group at a time and takes the exact optimum of the sums;
EvoPress (arXiv 2410.14649) shows networks where losses do not add up. So the optimum is where a search begins here
rather than its answer: Thompson sampling on the score model, held near the best network found by a trust region.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import final

import numpy as np

from autoprune.allocation.knapsack import solution
from autoprune.allocation.parts.curves import Curve, grid, measured
from autoprune.controllers.base import Controller, Trial
from autoprune.controllers.parts.history import History, near_best
from autoprune.controllers.parts.proposals import as_widths
from autoprune.controllers.surrogate import Surrogate
from autoprune.controllers.wrappers.trust_region import TrustRegion
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import ConfigError, EvaluationError
from autoprune.score_model.kernel import EXPONENT
from autoprune.space.groups import FloatArray, IntArray, WidthGroup, Widths

_POINTS = 8
"""Of the table, as in the allocation `knapsack`."""


@final
class KnapsackPlus(Controller):
    """A table of single groups, whose networks exceed the budget; its optimum; proposals near the best.

    Args:
        domain: the space under its budget.
        seed: of the order of the table, and of the search after it.
        trials: how many proposals the search will make, where that is known.
        points: widths of each group in the table beside the full one; None: as many as fit `table`, at most 8. Where
            they are fewer than 8, losses in between are those of a power law through them, as the score model has it.
        table: share of `trials` that the table may take; where not even one point of every group fits, some groups
            are left out by chance, and count as the mean of the others.
        distance: of the trust region, a difference of log ratios.

    Raises:
        ConfigError: a setting is out of its range.
    """

    keeps_budget = False

    def __init__(
        self,
        domain: BudgetedSpace,
        *,
        seed: int,
        trials: int | None = None,
        points: int | None = None,
        table: float = 0.5,
        distance: float = 0.5,
    ) -> None:
        if not 0 < table < 1:
            raise ConfigError(f"knapsack_plus: table must be between 0 and 1, got {table!r}")
        if points is not None and points < 1:
            raise ConfigError(f"knapsack_plus: points must be at least 1, got {points}")
        groups = domain.space.groups
        most = None if trials is None else max(1, int(table * trials))
        fitting = _POINTS if most is None else max(1, min(_POINTS, (most - 1) // len(groups)))
        self._points = fitting if points is None else points
        self._domain = domain
        self._history, self._rng = History(domain), np.random.default_rng(seed)
        table_rows = _table(domain, self._points, self._rng)[:most]
        self._todo, self._table = deque(table_rows), frozenset(table_rows)
        self._search = TrustRegion(domain, Surrogate(domain, seed=seed, startup=1), seed=seed, distance=distance)
        self._stale = True  # something of the table became known since its optimum was looked for

    def ask(self, n: int = 1) -> list[Widths]:
        """Return `n` networks of the table, then its optimum by what is known of it, then proposals near the best."""
        return [self._history.mark(self._propose()) for _ in range(n)]

    def tell(self, trials: Sequence[Trial]) -> None:
        """Add the scores to the table; those inside the budget also teach the search."""
        told = self._history.tell(trials)
        self._stale |= any(trial.widths in self._table for trial, _ in told)
        if trials:
            inside = self._domain.feasible(np.array([trial.widths for trial in trials]))
            self._search.tell([trial for trial, keeps in zip(trials, inside, strict=True) if keeps])

    def exchange(self, proposed: Widths, handed_out: Widths) -> None:
        """See `Controller.exchange`."""
        self._history.exchange(proposed, handed_out)
        self._search.exchange(proposed, handed_out)

    def optimum(self) -> Widths:
        """The table's, filled up; uniform widths where the full network has no score."""
        try:
            curves = measured("knapsack_plus", self._domain, self._known, self._points)
        except EvaluationError:
            return self._domain.uniform()
        filled = [_filled(curve, group) for curve, group in zip(curves, self._domain.space.groups, strict=True)]
        return as_widths(self._domain.repair(solution(self._domain, filled)[0][None])[0])

    def _propose(self) -> Widths:
        while self._todo:
            if (widths := self._todo.popleft()) not in self._history.seen:
                return widths
        if self._stale:
            self._stale = False
            if (best := self.optimum()) not in self._history.seen:
                return best
        proposed = self._search.ask()[0]
        if proposed not in self._history.seen:
            return proposed
        other = near_best(self._domain, self._history, self._rng)
        self._search.exchange(proposed, other)
        return other

    def _known(self, rows: Sequence[Widths]) -> FloatArray:
        return np.array([self._history.scores.get(widths, np.nan) for widths in rows], dtype=np.float64)


def _filled(curve: Curve, group: WidthGroup) -> Curve:
    """The same curve at eight widths and more; straight in the power of the width by which returns diminish.

    With the smallest and the full width alone, an optimum of sums lies in the corners, where networks collapse.
    """
    widths = np.union1d(curve.widths, np.array([*grid(group, _POINTS), group.width]))

    def power(values: IntArray) -> FloatArray:
        return -((np.maximum(values, 1) / group.width) ** EXPONENT)

    return Curve(widths, np.interp(power(widths), power(curve.widths), curve.losses))


def _table(domain: BudgetedSpace, points: int, rng: np.random.Generator) -> list[Widths]:
    """The full network, then every group's widths alone: a point of each group, in random order, before any second."""
    full = domain.space.full
    grids = [list(rng.permutation(grid(group, points))) for group in domain.space.groups]
    rows = [full]
    for rank in range(max(map(len, grids), default=0)):
        for place in rng.permutation(len(grids)):
            if rank < len(grids[place]):
                rows.append((*full[:place], int(grids[place][rank]), *full[place + 1 :]))
    return rows
