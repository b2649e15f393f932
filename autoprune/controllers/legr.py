"""LeGR: Chin et al. 2020, https://arxiv.org/abs/1904.12368, Algorithm 1: learned global ranking.

One affine map per group makes the importances of all groups comparable: channel i of group l ranks at
alpha_l * I_i + kappa_l, and the lowest-ranked channels of the whole network go until the budget is met. Regularised
evolution learns the pairs (alpha, kappa). A ranking serves every budget.

Population 64, tournaments of 16, 400 generations, a tenth of the groups mutated, log alpha with standard deviation 1
and kappa with that of the group's importances, as in the authors' code.

A search in a family of budgets begins with the best map of the one before, and evolves it on instead of drawing maps at
random: the paper's one ranking, scored and refined at every budget.

Departures: where a search is shorter than 400 trials, the population is a quarter of it at most, and tournaments a
quarter of that; the map that changes nothing is the first member, not the last one of the start. Where no importances
are given (a search over a table, say), those of a group fall linearly with the rank: alpha and kappa then say how a
group's width follows one threshold. What others proposed has no map and teaches nothing, unless it is what the first
map gives: then that map is a member with the score that is known.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import final

import numpy as np

from autoprune.controllers.base import Controller, Trial
from autoprune.controllers.parts.history import History
from autoprune.controllers.parts.proposals import as_widths, unseen_member
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import ConfigError
from autoprune.space.groups import BoolArray, FloatArray, Widths

_POPULATION, _SAMPLE, _GENERATIONS = 64, 16, 400
_MUTATED = 0.1
_LEAST_POPULATION = 8
_TRIES = 8  # maps whose widths are known already before random widths are proposed


@final
class LeGR(Controller):
    """Evolves one affine map per group; widths follow from the ranking of all channels.

    Args:
        domain: the space under its budget.
        seed: of every random choice.
        trials: how many proposals the search will make, where that is known.
        importance: per group the (width,) importances of its channels in any order; None: see the module.
        learned: (2, G) alpha and kappa that a search for another budget has found; None: there was none.

    Raises:
        ConfigError: importances, or a map, that do not fit the groups.
    """

    def __init__(
        self,
        domain: BudgetedSpace,
        *,
        seed: int,
        trials: int | None = None,
        importance: Sequence[FloatArray] | None = None,
        learned: Sequence[Sequence[float]] | None = None,
    ) -> None:
        self._domain = domain
        self._importance = _checked(domain, importance) if importance is not None else _by_rank(domain)
        self._spread = np.array([float(np.std(of_group)) for of_group in self._importance])
        self._unchanged = np.stack([np.ones(len(self._spread)), np.zeros(len(self._spread))])
        self._learned = None if learned is None else _checked_map(domain, learned)
        self._rng = np.random.default_rng(seed)
        self._history = History(domain)
        self._generations = trials or _GENERATIONS
        size = min(_POPULATION, max(_LEAST_POPULATION, self._generations // 4))
        self._size, self._sample = size, max(1, size * _SAMPLE // _POPULATION)
        self._maps: dict[Widths, FloatArray] = {}
        self._population: deque[tuple[FloatArray, float]] = deque(maxlen=size)
        self._best: tuple[FloatArray, float] | None = None
        self._made = 0

    def ask(self, n: int = 1) -> list[Widths]:
        """Return the widths that `n` new maps give."""
        return [self._history.mark(self._propose()) for _ in range(n)]

    def tell(self, trials: Sequence[Trial]) -> None:
        """Append the maps whose widths have scores to the population."""
        for trial, score in self._history.tell(trials):
            if trial.widths in self._maps:
                self._join(self._maps[trial.widths], score)

    def exchange(self, proposed: Widths, handed_out: Widths) -> None:
        """Let the map of a proposal have the score of what is evaluated in its place."""
        self._history.exchange(proposed, handed_out)
        if (scale_and_shift := self._maps.pop(proposed, None)) is not None:
            self._maps[handed_out] = scale_and_shift

    def learned(self) -> list[list[float]] | None:
        """Return alpha and kappa of the map with the highest score, None before there is one."""
        return None if self._best is None else [list(map(float, row)) for row in self._best[0]]

    def _join(self, scale_and_shift: FloatArray, score: float) -> None:
        self._population.append((scale_and_shift, score))
        if self._best is None or score > self._best[1]:
            self._best = scale_and_shift, score

    def _propose(self) -> Widths:
        self._made += 1
        given = [self._unchanged] if self._learned is None else [self._learned, self._unchanged]
        for attempt in range(_TRIES):
            first = self._made <= len(given) and attempt == 0
            scale_and_shift = given[self._made - 1] if first else self._new_map()
            widths = cut_by_ranking(self._domain, self._importance, scale_and_shift)
            if first or widths not in self._history.seen:
                self._maps[widths] = scale_and_shift
            if widths not in self._history.seen:
                return widths
            if first and widths in self._history.scores:  # others had it scored, as uniform widths are
                self._join(scale_and_shift, self._history.scores[widths])
        return unseen_member(self._domain, self._history.seen, self._rng)

    def _new_map(self) -> FloatArray:
        """(2, G) alpha and kappa: random ones, then mutants of tournament winners."""
        n = len(self._spread)
        if self._learned is None and (len(self._population) < 2 or self._made <= self._size):
            return self._mutated(self._unchanged, np.ones(n, dtype=np.bool_), 1.0)
        if self._population:
            entrants = self._rng.integers(len(self._population), size=self._sample)
            parent = max((self._population[i] for i in entrants), key=lambda member: member[1])[0]
        else:
            parent = self._learned if self._learned is not None else self._unchanged
        chosen = np.zeros(n, dtype=np.bool_)
        chosen[self._rng.integers(n, size=max(1, int(_MUTATED * n)))] = True
        step = 1 - min(1.0, self._made / self._generations) / 1.25
        return self._mutated(parent, chosen, step)

    def _mutated(self, parent: FloatArray, chosen: BoolArray, step: float) -> FloatArray:
        draws = self._rng.standard_normal(parent.shape) * chosen
        return np.stack([parent[0] * np.exp(step * draws[0]), parent[1] + self._spread * draws[1]])


def cut_by_ranking(domain: BudgetedSpace, importance: Sequence[FloatArray], scale_and_shift: FloatArray) -> Widths:
    """Return the widths that a global ranking leaves within a budget, rounded and repaired.

    Args:
        domain: the space under any budget.
        importance: per group the (width,) importances of its channels.
        scale_and_shift: (2, G) alpha and kappa.
    """
    scale, shift = scale_and_shift
    ranks = np.concatenate([a * -np.sort(-i) + k for a, i, k in zip(scale, importance, shift, strict=True)])
    group = np.repeat(np.arange(len(importance)), [len(of_group) for of_group in importance])
    share = np.concatenate([np.arange(len(of_group)) / len(of_group) for of_group in importance])
    order = group[np.lexsort((share, -ranks))]  # of equal ones, as large a share of every group
    least = np.array(domain.space.smallest)
    low, high = 0, len(order)  # the most channels within the budget; no group falls below its smallest choice
    while low < high:
        middle = (low + high + 1) // 2
        kept = np.maximum(np.bincount(order[:middle], minlength=len(importance)), least)
        inside = domain.budget.usage(kept[None, :])[0] <= 1.0
        low, high = (middle, high) if inside else (low, middle - 1)
    kept = np.maximum(np.bincount(order[:low], minlength=len(importance)), least)
    return as_widths(domain.repair(kept[None, :])[0])


def _by_rank(domain: BudgetedSpace) -> list[FloatArray]:
    """Importances from almost 1 down to almost 0, evenly."""
    return [1 - (np.arange(group.width) + 0.5) / group.width for group in domain.space.groups]


def _checked(domain: BudgetedSpace, importance: Sequence[FloatArray]) -> list[FloatArray]:
    groups = domain.space.groups
    if len(importance) != len(groups):
        raise ConfigError(f"legr: importances of {len(importance)} groups given for a space of {len(groups)}")
    checked = [np.asarray(of_group, dtype=np.float64) for of_group in importance]
    for group, of_group in zip(groups, checked, strict=True):
        if of_group.shape != (group.width,) or not np.isfinite(of_group).all():
            raise ConfigError(
                f"legr: group {group.name!r} needs {group.width} finite importances, got shape {of_group.shape}"
            )
    return checked


def _checked_map(domain: BudgetedSpace, learned: Sequence[Sequence[float]]) -> FloatArray:
    scale_and_shift, groups = np.asarray(learned, dtype=np.float64), len(domain.space.groups)
    if scale_and_shift.shape != (2, groups) or not np.isfinite(scale_and_shift).all():
        raise ConfigError(
            f"legr: a learned map has alpha and kappa for each of {groups} groups, finite numbers, got shape "
            f"{scale_and_shift.shape}; it belongs to a search of another space"
        )
    return scale_and_shift
