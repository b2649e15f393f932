"""Regularised evolution, Real et al. 2019, https://arxiv.org/abs/1802.01548, Algorithm 1, over width vectors.

Departures: children of two parents as well as of one, proposals repaired onto the budget, repeats avoided, and the
proposals of one batch are made before any of them is told.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import final

import numpy as np

from autoprune.controllers.base import Controller, Trial
from autoprune.controllers.proposals import TRIES, cross, mutate, teachable, unseen_member, unseen_variation
from autoprune.cost.repair import BudgetedSpace
from autoprune.errors import ConfigError
from autoprune.space.groups import Widths


@final
class Evolution(Controller):
    """Tournament selection in a population whose oldest member dies.

    Args:
        domain: the space under its budget.
        seed: of every random choice.
        population: P, the number of living trials; as many random members come first.
        sample: S, trials per tournament.
        mutate: share of the groups that a mutation changes.
        crossover: probability that a child has two parents.

    Raises:
        ConfigError: a setting is out of its range.
    """

    def __init__(
        self,
        domain: BudgetedSpace,
        *,
        seed: int,
        population: int = 24,
        sample: int = 6,
        mutate: float = 0.2,
        crossover: float = 0.5,
    ) -> None:
        if not 1 <= sample <= population:
            raise ConfigError(
                f"evolution: sample must be from 1 to population, got sample={sample}, population={population}"
            )
        for name, share in (("mutate", mutate), ("crossover", crossover)):
            if not 0 <= share <= 1:
                raise ConfigError(f"evolution: {name} must be from 0 to 1, got {share}")
        self._domain = domain
        self._rng = np.random.default_rng(seed)
        self._size, self._sample, self._mutate, self._crossover = population, sample, mutate, crossover
        self._population: deque[tuple[Widths, float]] = deque(maxlen=population)  # the oldest leaves
        self._seen: set[Widths] = set()
        self._pending: set[Widths] = set()

    def ask(self, n: int = 1) -> list[Widths]:
        """Return `n` random members while the population is young, then children of tournament winners."""
        return [self._propose() for _ in range(n)]

    def tell(self, trials: Sequence[Trial]) -> None:
        """Append the scored trials to the population."""
        told = {trial.widths for trial in trials}
        self._seen |= told
        self._pending -= told
        self._population.extend((trial.widths, score) for trial, score in teachable(trials))

    def _propose(self) -> Widths:
        young = len(self._population) + len(self._pending) < self._size
        if young or not self._population:
            proposal = unseen_member(self._domain, self._seen, self._rng)  # Alg. 1, first loop: random start
        else:
            proposal = self._child()
        self._seen.add(proposal)
        self._pending.add(proposal)
        return proposal

    def _child(self) -> Widths:
        parent = np.repeat([self._winner()], TRIES, axis=0)
        if self._rng.random() < self._crossover:
            parent = cross(parent, np.repeat([self._winner()], TRIES, axis=0), self._rng)
        children = mutate(self._domain, parent, self._mutate, self._rng)
        return unseen_variation(self._domain, children, self._seen, self._rng)

    def _winner(self) -> Widths:
        entrants = self._rng.integers(len(self._population), size=self._sample)
        return max((self._population[i] for i in entrants), key=lambda member: member[1])[0]
