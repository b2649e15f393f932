"""NSGA-II: Deb et al. 2002, https://doi.org/10.1109/4235.996017, over the score and one or several metrics.

One search for a family of budgets: proposals meet the job's budget or a share of it, and survive if no other trial has
a higher score at lower costs. `front` gives the trials that none beats, `winners` the best network of every budget;
both are chosen from complete trials.

Fast non-dominated sorting, crowding distance, and binary tournaments by both (section III); crossover with probability
0.9, a mutation in one group on average (section VI). Departures: the population is 100 as in the paper, but at most a
quarter of the trials; it is renewed trial by trial, not by generations; crossover and mutation are those of the other
controllers; a child is repaired onto the budget of one of its parents, now and then onto any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np

from autoprune.controllers.base import Controller, Trial, TrialState
from autoprune.controllers.parts.history import History
from autoprune.controllers.parts.proposals import as_widths, cross, mutate
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import BudgetError, ConfigError, suggest
from autoprune.score_model.posterior import ScoreModel
from autoprune.space.groups import BoolArray, FloatArray, IntArray, Widths

_POPULATION, _UNKNOWN_LENGTH, _LEAST_POPULATION = 100, 24, 8
_CROSSOVER = 0.9
_USUAL_SHARES = (0.75, 0.5)
_SIBLINGS = 8
"""Children, or random members, of which the first unseen one is proposed."""
_MIGRATION = 0.1
"""Probability that a child changes to a budget drawn at random."""


@final
class Pareto(Controller):
    """Trades score against costs, for several budgets in one search.

    Args:
        domain: the space under the largest of the budgets.
        seed: of every random choice.
        trials: how many proposals the search will make, where that is known.
        budgets: shares of the domain's limits, beside the whole; None: 0.75 and 0.5 where they can be reached; []:
            the whole alone.
        metrics: costs to trade against; None: those that the job limits.
        population: survivors; None: see the module.

    Raises:
        ConfigError: shares out of range, or an unknown metric.
        BudgetError: a share of the budget that cannot be reached.
    """

    def __init__(
        self,
        domain: BudgetedSpace,
        *,
        seed: int,
        trials: int | None = None,
        budgets: Sequence[float] | None = None,
        metrics: Sequence[str] | None = None,
        population: int | None = None,
    ) -> None:
        self._domain = domain
        self._metrics = _checked_metrics(domain, metrics)
        self.domains = {1.0: domain, **_shares_of(domain, budgets)}
        self._levels = list(self.domains.values())
        self.one_budget = len(self._levels) == 1
        self.keeps_budget = self.one_budget or not domain.budget.has_ranges
        self._rng = np.random.default_rng(seed)
        self._history = History(domain)
        affordable = max(_LEAST_POPULATION, trials // 4) if trials else _UNKNOWN_LENGTH
        self._size = min(_POPULATION, affordable) if population is None else population
        if self._size < 2:
            raise ConfigError(f"pareto: population must be at least 2, got {population}")
        self._level: dict[Widths, int] = {}  # whose budget a proposal was repaired onto
        self._complete: set[Widths] = set()
        self._population: list[Widths] = []

    def ask(self, n: int = 1) -> list[Widths]:
        """Return `n` random members of the budgets in turn, then children."""
        return [self._history.mark(self._propose()) for _ in range(n)]

    def tell(self, trials: Sequence[Trial]) -> None:
        """Let the scored trials inside the largest budget compete with the population."""
        scored = [trial for trial, _ in self._history.tell(trials)]
        self._complete |= {trial.widths for trial in scored if trial.state is TrialState.COMPLETE}
        told = [trial.widths for trial in scored]
        fresh = [widths for widths in dict.fromkeys(told) if widths not in self._population]
        if fresh:
            below = self._domain.budget.usage(np.array(fresh)) <= 1.0  # smaller budgets lie below a lower end
            self._population += [widths for widths, ok in zip(fresh, below, strict=True) if ok]
        if len(self._population) > self._size:
            ranks, crowding = self._ranked(self._population)
            order = sorted(range(len(self._population)), key=lambda i: (ranks[i], -crowding[i], i))
            self._population = [self._population[i] for i in sorted(order[: self._size])]

    def front(self) -> dict[Widths, float]:
        """The mean scores of complete widths that no others beat in score and costs at once, the costliest first."""
        complete = [widths for widths in self._history.scores if widths in self._complete]
        known = [widths for widths in complete if self._domain.budget.usage(np.array([widths]))[0] <= 1.0]
        if not known:
            return {}
        ranks, _ = self._ranked(known)
        best = [widths for widths, rank in zip(known, ranks, strict=True) if rank == 0]
        costs = self._domain.budget.usage(np.array(best))
        return {best[i]: self._history.scores[best[i]] for i in np.argsort(-costs, kind="stable")}

    def winners(self) -> dict[float, Widths]:
        """For each budget, as a share, the complete network inside it with the highest posterior mean."""
        complete = [known for known in self._history.scores if known in self._complete]
        if not complete:
            return {}
        widths, scores = np.array(complete), np.array([self._history.scores[known] for known in complete])
        mean = ScoreModel(self._domain).fit(widths, scores).mean(widths)
        found = {}
        for share, domain in self.domains.items():
            inside = np.flatnonzero(domain.feasible(widths))
            if len(inside):
                found[share] = as_widths(widths[inside[np.argmax(mean[inside])]])
        return found

    def _propose(self) -> Widths:
        young = len(self._population) + len(self._history.pending) < self._size
        for level in self._rng.permutation(len(self._levels)):  # the others where one is used up
            if young or len(self._population) < 2:
                members = self._levels[level].sample(_SIBLINGS, self._rng)
            else:
                level, members = self._children(level)
            for widths in map(as_widths, members):
                if widths not in self._history.seen:
                    self._level[widths] = int(level)
                    return widths
        return as_widths(members[0])

    def _children(self, any_level: int) -> tuple[int, IntArray]:
        """Repaired children of two tournament winners, and the budget that they are on."""
        ranks, crowding = self._ranked(self._population)
        parents = []
        for _ in range(2):
            one, other = self._rng.integers(len(self._population), size=2)
            parents.append(min(one, other, key=lambda i: (ranks[i], -crowding[i])))
        first, second = (np.repeat([self._population[i]], _SIBLINGS, axis=0) for i in parents)
        mixed = cross(first, second, self._rng) if self._rng.random() < _CROSSOVER else first
        level = self._level.get(self._population[parents[0]], 0)
        if self._rng.random() < _MIGRATION:
            level = any_level
        return level, self._levels[level].repair(mutate(self._domain, mixed, 1 / mixed.shape[1], self._rng))

    def _ranked(self, members: Sequence[Widths]) -> tuple[IntArray, FloatArray]:
        """Rank of the front and crowding distance of each member."""
        costs = self._domain.costs(np.array(members))
        scores = np.array([self._history.scores[widths] for widths in members])
        objectives = np.stack([-scores, *(costs[name] for name in self._metrics)], axis=1)
        ranks = nondominated_ranks(objectives)
        crowding = np.zeros(len(members))
        for rank in range(int(ranks.max()) + 1):
            crowding[ranks == rank] = crowding_distances(objectives[ranks == rank])
        return ranks, crowding


def nondominated_ranks(objectives: FloatArray) -> IntArray:
    """Return (N,) the front of each row of (N, M) objectives to be minimised, 0 for those that no row dominates."""
    no_worse: BoolArray = np.all(objectives[:, None, :] <= objectives[None, :, :], axis=2)
    dominates: BoolArray = no_worse & ~no_worse.T
    ranks = np.full(len(objectives), -1)
    front = 0
    while (left := ranks < 0).any():
        ranks[left & ~dominates[left].any(axis=0)] = front
        front += 1
    return ranks


def crowding_distances(objectives: FloatArray) -> FloatArray:
    """Return (N,) the sides of the box between each row's neighbours in its front; infinite at the ends."""
    distances = np.zeros(len(objectives))
    for column in objectives.T:
        order = np.argsort(column, kind="stable")
        distances[order[[0, -1]]] = np.inf
        span = float(column[order[-1]] - column[order[0]]) or 1.0
        distances[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / span
    return distances


def _checked_metrics(domain: BudgetedSpace, metrics: Sequence[str] | None) -> list[str]:
    known = list(domain.budget.metrics)
    wanted = [limit.metric for limit in domain.budget.limits] if metrics is None else list(metrics)
    for name in wanted:
        if name not in known:
            raise ConfigError(f"pareto: unknown metric {name!r}; allowed: {', '.join(known)}.{suggest(name, known)}")
    if not wanted:
        raise ConfigError(f"pareto: metrics must name at least one of {', '.join(known)}")
    return wanted


def _shares_of(domain: BudgetedSpace, budgets: Sequence[float] | None) -> dict[float, BudgetedSpace]:
    """Smaller budgets, the largest first; of the usual ones only those that can be reached."""
    shares = sorted(map(float, _USUAL_SHARES if budgets is None else budgets), reverse=True)
    if not all(0 < share <= 1 for share in shares):
        raise ConfigError(f"pareto: budgets must be shares of the job's budget above 0 and up to 1, got {budgets}")
    found = {}
    for share in shares:
        try:
            found[share] = domain.scaled(share)
        except BudgetError as error:
            if budgets is not None:
                raise BudgetError(f"pareto: {share:g} times the budget cannot be used: {error}") from error
    return found
