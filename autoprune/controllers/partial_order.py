"""Partial Order Pruning: Li, Zhou, Pan and Feng, CVPR 2019, https://arxiv.org/abs/1903.03777.

A network that is nowhere wider than another comes before it in a partial order, and is assumed to be no slower and no
more accurate. So where one scored network costs less than another and is at least as good, whatever comes before the
other and costs more than the one cannot move the boundary between cost and score: it is never proposed. New proposals
are mutants of networks on the boundary.

The cost is the share of the budget's tightest limit; limit `latency_ms` as the paper does. Departures: the paper's
networks have any cost, these lie on a few budgets up to the job's, evenly spread; depth changes where blocks can be
left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import final

import numpy as np

from autoprune.controllers.base import Controller, Trial, TrialState
from autoprune.controllers.parts.history import History
from autoprune.controllers.parts.proposals import TRIES, as_widths, mutate, unseen_member
from autoprune.cost.budget.budget import Bound
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import BudgetError, ConfigError
from autoprune.score_model.posterior import ScoreModel
from autoprune.space.groups import BoolArray, FloatArray, IntArray, Widths

_STARTUP, _LEAST_STARTUP, _SHARE = 20, 4, 5
"""Random proposals: 20, at most a fifth of the trials."""


@final
class PartialOrder(Controller):
    """Mutants of the boundary between cost and score, except those that scores so far rule out.

    Args:
        domain: the space under its budget.
        seed: of every random choice.
        trials: how many proposals the search will make, where that is known.
        least: share of the budget's upper ends down to which networks are proposed, not below a lower end.
        budgets: how many budgets from there to the whole, those that can be reached.
        startup: random proposals first; None: 20, at most a fifth of `trials`.

    Raises:
        ConfigError: a setting is out of its range.
    """

    one_budget = False

    def __init__(
        self,
        domain: BudgetedSpace,
        *,
        seed: int,
        trials: int | None = None,
        least: float = 0.5,
        budgets: int = 6,
        startup: int | None = None,
    ) -> None:
        usual = _STARTUP if trials is None else min(_STARTUP, max(_LEAST_STARTUP, trials // _SHARE))
        self._startup = usual if startup is None else startup
        if not 0 < least <= 1:
            raise ConfigError(f"partial_order: least must be above 0 and at most 1, got {least!r}")
        for name, value in (("budgets", budgets), ("startup", self._startup)):
            if value < 1:
                raise ConfigError(f"partial_order: {name} must be at least 1, got {value}")
        self._domain = domain
        self._levels = _reachable(domain, np.linspace(1.0, least, budgets)[: 1 if least == 1 else None])
        self._rng = np.random.default_rng(seed)
        self._history = History(domain)
        self._complete: set[Widths] = set()
        self._widths: IntArray = np.empty((0, len(domain.space.groups)), dtype=np.int64)
        self._usage: FloatArray = np.empty(0)
        self._scores: FloatArray = np.empty(0)
        self._least_as_good: FloatArray = np.empty(0)  # cost of the cheapest scored network that is at least as good

    def ask(self, n: int = 1) -> list[Widths]:
        """Return `n` random members, then mutants that are not ruled out."""
        return [self._history.mark(self._propose()) for _ in range(n)]

    def tell(self, trials: Sequence[Trial]) -> None:
        """Take in the scores, and what they rule out."""
        told = self._history.tell(trials)
        self._complete |= {trial.widths for trial, _ in told if trial.state is TrialState.COMPLETE}
        if not told:
            return
        known = [widths for widths in self._history.scores if widths in self._complete]
        self._widths = np.array(known, dtype=np.int64).reshape(-1, self._widths.shape[1])
        self._usage = self._domain.budget.usage(self._widths) if known else np.empty(0)
        self._scores = np.array([self._history.scores[widths] for widths in known])
        as_good = self._scores[None, :] >= self._scores[:, None]
        self._least_as_good = np.where(as_good, self._usage[None, :], np.inf).min(axis=1, initial=np.inf)

    def ruled_out(self, rows: IntArray) -> BoolArray:
        """(N,) True where an (N, G) network comes before a scored one and costs more than another one as good."""
        theirs = self._widths[None, :, :]
        before = np.all(rows[:, None, :] <= theirs, axis=2) & np.any(rows[:, None, :] < theirs, axis=2)
        dearer = self._domain.budget.usage(rows)[:, None] >= self._least_as_good[None, :]
        out: BoolArray = np.any(before & dearer, axis=1)
        return out

    def boundary(self) -> IntArray:
        """(N, G) scored networks that no cheaper or equal one is better than."""
        cheaper = self._usage[None, :] <= self._usage[:, None]
        better = self._scores[None, :] > self._scores[:, None]
        found: IntArray = self._widths[~(cheaper & better).any(axis=1)]
        return found

    def winners(self) -> Mapping[float, Widths]:
        """For each budget, as a share, the complete network inside it with the highest posterior mean."""
        if not len(self._widths):
            return {}
        mean = ScoreModel(self._domain).fit(self._widths, self._scores).mean(self._widths)
        inside = {share: np.flatnonzero(level.feasible(self._widths)) for share, level in self._levels.items()}
        return {
            share: as_widths(self._widths[rows[np.argmax(mean[rows])]]) for share, rows in inside.items() if len(rows)
        }

    def _propose(self) -> Widths:
        levels = list(self._levels.values())
        level = levels[self._rng.integers(len(levels))]
        if len(self._history.seen) < self._startup or not len(self._widths):
            return unseen_member(level, self._history.seen, self._rng)
        parents = self.boundary()
        chosen = parents[self._rng.integers(len(parents), size=TRIES)]
        mutants = level.repair(mutate(level, chosen, 1 / chosen.shape[1], self._rng))
        for rows in (mutants, level.sample(TRIES, self._rng)):
            for row in rows[~self.ruled_out(rows)]:
                if (widths := as_widths(row)) not in self._history.seen:
                    return widths
        return unseen_member(level, self._history.seen, self._rng)


def _reachable(domain: BudgetedSpace, shares: FloatArray) -> dict[float, BudgetedSpace]:
    """Share of the upper ends -> the space under it; lower ends stay."""
    found = {1.0: domain}
    for share in map(float, shares[1:]):
        limits: dict[str, Bound] = {
            limit.metric: {"max": share * limit.upper, **({"min": limit.lower} if limit.lower else {})}
            for limit in domain.budget.limits
        }
        try:
            found[share] = domain.under(limits)
        except BudgetError:
            break
    return found
