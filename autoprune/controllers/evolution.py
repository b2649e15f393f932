"""Evolution over width vectors: regularised (Real et al.), MetaPruning's, and EagleEye's random sampling.

* `regularised`: Real et al. 2019, https://arxiv.org/abs/1802.01548, Algorithm 1: tournaments in a population whose
  oldest member dies. P = 100 and S = 25 as in section 3, in proportion where the search is too short for them.
* `metapruning`: Liu et al. 2019, https://arxiv.org/abs/1903.10258, Algorithm 1: the 10 best ever scored are parents;
  half of each generation of 50 are mutants in which every gene is redrawn with probability 0.1, half are crossovers.
* `eagleeye`: Li et al. 2020, https://arxiv.org/abs/2007.02491, section 3.2: every proposal is random, with pruning
  rates drawn evenly from 0 to R, and nothing is learned from scores. The method's point is how candidates are scored,
  which is the evaluator `inherited` here.

Departures: in `regularised` children have two parents as well as one, and a mutation changes several widths by random
factors (the paper's one change is made for graphs of operations). Everywhere proposals are repaired onto the budget
(the papers reject), repeats are avoided, and children are made in litters of eight, before their elder siblings are
scored, as asynchronous workers do in Real et al.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, final, get_args

import numpy as np

from autoprune.controllers.base import Controller, Trial
from autoprune.controllers.parts.history import History
from autoprune.controllers.parts.proposals import as_widths, cross, mutate, unseen_member
from autoprune.controllers.parts.ratios import random_widths
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import ConfigError, suggest
from autoprune.space.groups import FloatArray, IntArray, Widths

Variant: TypeAlias = Literal["regularised", "metapruning", "eagleeye"]

_LITTER = 8
"""Children repaired in one call: its cost hardly depends on their number."""


@final
@dataclass(frozen=True, slots=True)
class _Defaults:
    population: int
    sampled: float  # size of a tournament, or number of parents, as a share of the population
    mutate: float
    crossover: float


_DEFAULTS = {
    "regularised": _Defaults(population=100, sampled=0.25, mutate=0.2, crossover=0.5),
    "metapruning": _Defaults(population=50, sampled=0.2, mutate=0.1, crossover=0.5),
    "eagleeye": _Defaults(population=1, sampled=1.0, mutate=0.0, crossover=0.0),
}
_UNKNOWN_LENGTH = 24
_LEAST_POPULATION = 8
_GENERATIONS = 4  # a search shorter than this many populations gets a smaller one


@final
class Evolution(Controller):
    """Children of good trials, after a random start.

    Args:
        domain: the space under its budget.
        seed: of every random choice.
        trials: how many proposals the search will make, where that is known.
        variant: whose evolution; see the module.
        population: living trials, and random members that come first; None: the variant's, at most a quarter of
            `trials` (24 where that is unknown).
        sample: trials per tournament, or how many of the best are parents; None: the variant's share of the population.
        mutate: share of the groups that a mutation changes; None: the variant's.
        crossover: probability that a child has two parents; None: the variant's.
        largest_cut: R, the largest pruning rate that `eagleeye` draws.

    Raises:
        ConfigError: a setting is out of its range.
    """

    def __init__(
        self,
        domain: BudgetedSpace,
        *,
        seed: int,
        trials: int | None = None,
        variant: Variant = "regularised",
        population: int | None = None,
        sample: int | None = None,
        mutate: float | None = None,
        crossover: float | None = None,
        largest_cut: float = 0.7,
    ) -> None:
        if variant not in _DEFAULTS:
            allowed = get_args(Variant)
            raise ConfigError(
                f"evolution: variant {variant!r} is unknown; allowed: {', '.join(allowed)}.{suggest(variant, allowed)}"
            )
        usual = _DEFAULTS[variant]
        affordable = max(_LEAST_POPULATION, trials // _GENERATIONS) if trials else _UNKNOWN_LENGTH
        size = min(usual.population, affordable) if population is None else population
        self._sample = max(1, round(usual.sampled * size)) if sample is None else sample
        if not 1 <= self._sample <= size:
            raise ConfigError(f"evolution: sample must be from 1 to population, got sample={sample}, population={size}")
        self._mutate = usual.mutate if mutate is None else mutate
        self._crossover = usual.crossover if crossover is None else crossover
        for name, share in (("mutate", self._mutate), ("crossover", self._crossover)):
            if not 0 <= share <= 1:
                raise ConfigError(f"evolution: {name} must be from 0 to 1, got {share}")
        if not 0 < largest_cut < 1:
            raise ConfigError(f"evolution: largest_cut must be between 0 and 1, got {largest_cut}")
        self._domain, self._variant, self._largest_cut = domain, variant, largest_cut
        self._rng = np.random.default_rng(seed)
        self._history = History(domain)
        self._size = size
        # the oldest leaves, but MetaPruning's parents are the best of all time
        self._population: deque[tuple[Widths, float]] = deque(maxlen=size if variant == "regularised" else None)
        self._strangers: deque[Widths] = deque()
        self._litter: deque[Widths] = deque()

    def ask(self, n: int = 1) -> list[Widths]:
        """Return `n` random members while the population is young, then children."""
        return [self._history.mark(self._propose()) for _ in range(n)]

    def tell(self, trials: Sequence[Trial]) -> None:
        """Append the scored trials to the population."""
        self._population.extend((trial.widths, score) for trial, score in self._history.tell(trials))

    def _propose(self) -> Widths:
        young = len(self._population) + len(self._history.pending) < self._size
        if young or not self._population or self._variant == "eagleeye":
            return self._next_of(self._strangers, random=True)
        return self._next_of(self._litter, random=False)

    def _next_of(self, brood: deque[Widths], *, random: bool) -> Widths:
        """The next unseen one of a brood; a new one is bred where it is used up."""
        for _ in range(2):
            while brood:
                if (child := brood.popleft()) not in self._history.seen:
                    return child
            proposals = self._random() if random else self._children()
            brood.extend(map(as_widths, self._domain.repair(proposals)))
        return unseen_member(self._domain, self._history.seen, self._rng)

    def _random(self) -> FloatArray:
        least = 1 - self._largest_cut if self._variant == "eagleeye" else 0.05
        return random_widths(self._domain, _LITTER, self._rng, least=least)

    def _children(self) -> FloatArray | IntArray:
        """(N, G) children of selected parents, not yet repaired."""
        first, second = self._parents(), self._parents()
        two = self._rng.random((_LITTER, 1)) < self._crossover
        mixed = np.where(two, cross(first, second, self._rng), first)
        if self._variant == "regularised":
            return mutate(self._domain, mixed, self._mutate, self._rng)
        redrawn = self._rng.random(mixed.shape) < self._mutate
        redrawn[np.arange(_LITTER), self._rng.integers(mixed.shape[1], size=_LITTER)] = True
        random = random_widths(self._domain, _LITTER, self._rng, least=0.05)
        return np.where(redrawn & ~two, random, mixed)

    def _parents(self) -> IntArray:
        """(N, G) winners of tournaments, or random ones of the best."""
        living = list(self._population)
        if self._variant == "metapruning":
            best = sorted(living, key=lambda member: -member[1])[: self._sample]
            return np.array([best[i][0] for i in self._rng.integers(len(best), size=_LITTER)])
        entrants = self._rng.integers(len(living), size=(_LITTER, self._sample))
        return np.array([max((living[i] for i in row), key=lambda member: member[1])[0] for row in entrants])
