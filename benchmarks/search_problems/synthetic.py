"""Synthetic scores over chains of convolutions: as noisy as the table, but with many groups and known optima.

None of them is the power law that the surrogate's prior assumes:

- separable: every group saturates exponentially, at a rate and with an effect of its own;
- pairwise: the same, and neighbours lose by not being matched to each other, at ratios of their own;
- narrow: a weak separable trend, and a bump around one member whose widths no trend points to.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TypeAlias

import numpy as np

from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.space.groups import FloatArray, IntArray, Widths
from autoprune.testing.spaces import chain_space
from search_problems.problem import Experiment, Problem

FAMILIES = ("separable", "pairwise", "narrow")
NOISE = 1.3
"""Standard deviation of one score over that of random members inside the budget, as on the table at uniform 0.5."""

_Score: TypeAlias = Callable[[IntArray], FloatArray]


class SyntheticProblem(Problem):
    """One random function of a family.

    Args:
        family: one of `FAMILIES`.
        n_groups: width groups, 16 choices each.
        seed: of the function.
    """

    unit = "sd of random members"

    def __init__(self, family: str, n_groups: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        full = rng.choice([32, 64, 128, 256], size=n_groups)
        self.domain = BudgetedSpace(chain_space([int(w) for w in np.sort(full)], levels=16), {"flops": "50%"})
        self.name = f"{family}, {n_groups} groups"
        self._full = np.array(self.domain.space.full)
        raw = _FUNCTIONS[family](self, rng)
        typical = raw(self.domain.sample(512, rng))
        self._uniform = self.domain.uniform()
        reference = raw(np.array([self._uniform]))[0]
        self.truth: _Score = lambda widths: (raw(widths) - reference) / typical.std()

    @property
    def uniform(self) -> Widths:
        """One ratio for all groups."""
        return self._uniform

    def experiment(self, seed: int) -> Experiment:
        """Draw noise; the same widths get the same noise, whoever asks and when."""

        def score(widths: Widths) -> float:
            noise = np.random.default_rng([seed, *widths]).standard_normal()
            return self._value(widths) + NOISE * float(noise)

        return Experiment(score=score, gain=self._value, expected=self._value)

    @cached_property
    def ceiling(self) -> float:
        """Best true score that a long evolution finds without noise."""
        rng = np.random.default_rng(1)
        members = np.concatenate([self.domain.sample(400, rng), [self._uniform]])
        for step in range(150):
            parents = members[np.argsort(-self.truth(members), kind="stable")[:40]]
            first, second = (parents[rng.integers(len(parents), size=200)] for _ in range(2))
            mixed = np.where(rng.random(first.shape) < 0.5, first, second) if step % 2 else first
            moved = rng.random(first.shape) < max(1.0 / first.shape[1], 0.3 * 0.97**step)
            steps = np.exp(rng.normal(scale=0.05 + 0.4 * 0.97**step, size=first.shape) * moved)
            members = np.concatenate([parents, self.domain.repair(mixed * steps)])
        return float(self.truth(members).max())

    def _value(self, widths: Widths) -> float:
        return float(self.truth(np.array([widths]))[0])

    def _ratios(self, widths: IntArray) -> FloatArray:
        ratios: FloatArray = widths / self._full
        return ratios

    def _separable(self, rng: np.random.Generator) -> _Score:
        effect = rng.lognormal(sigma=1.0, size=len(self._full))
        rate = rng.uniform(1.0, 6.0, size=len(self._full))
        return lambda widths: -np.exp(-self._ratios(widths) * rate) @ effect

    def _pairwise(self, rng: np.random.Generator) -> _Score:
        separable = self._separable(rng)
        weight = rng.lognormal(mean=-1.5, sigma=1.0, size=len(self._full) - 1)
        offset = rng.uniform(-0.6, 0.6, size=len(self._full) - 1)

        def score(widths: IntArray) -> FloatArray:
            logs = np.log(self._ratios(widths))
            mismatch = (logs[:, 1:] - logs[:, :-1] - offset) ** 2
            value: FloatArray = separable(widths) - mismatch @ weight
            return value

        return score

    def _narrow(self, rng: np.random.Generator) -> _Score:
        separable = self._separable(rng)
        spread = separable(self.domain.sample(256, rng)).std()
        target = np.log(self._ratios(self.domain.sample(1, rng)))

        def score(widths: IntArray) -> FloatArray:
            distance = ((np.log(self._ratios(widths)) - target) ** 2).mean(axis=1)
            value: FloatArray = 0.5 * separable(widths) / spread + 3.0 * np.exp(-distance / (2 * 0.4**2))
            return value

        return score


_FUNCTIONS: dict[str, Callable[[SyntheticProblem, np.random.Generator], _Score]] = {
    "separable": SyntheticProblem._separable,
    "pairwise": SyntheticProblem._pairwise,
    "narrow": SyntheticProblem._narrow,
}
