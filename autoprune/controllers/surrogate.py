"""Thompson sampling on a Gaussian process over widths: the default controller.

Every second proposal maximises a function drawn from the posterior (Thompson 1933; drawn pathwise, see `posterior`),
the others its mean, because the winner of a search is the posterior mean's. The maximum is sought by a small evolution
of repaired candidates around the best scored widths: in many dimensions a model of few scores is right near its data
only (Eriksson et al. 2019, https://arxiv.org/abs/1910.01739). Evaluating it costs microseconds, training minutes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np

from autoprune.controllers.base import Controller, Trial, TrialState
from autoprune.controllers.posterior import ScoreFunctions, ScoreModel
from autoprune.controllers.proposals import as_widths, cross, mutate, teachable, unseen_member
from autoprune.cost.polynomial import WidthMatrix
from autoprune.cost.repair import BudgetedSpace
from autoprune.errors import ConfigError
from autoprune.space.groups import FloatArray, IntArray, Widths

_ELITE, _CHILDREN, _ROUNDS = 16, 48, 4
"""Parents and children per function and round of the evolution inside one proposal."""

_MUTATED_GROUPS = 2.0
"""Groups that a child changes on average."""

_PRUNED_NOISE = 2.0
"""A pruned trial's score is of a lower fidelity: it counts a quarter of a complete one."""

_GROWTH = 1.1
"""The kernel's parameters are fitted again when there are 10 % more scores."""


@final
class Surrogate(Controller):
    """Random first proposals, then maxima of the posterior.

    Args:
        domain: the space under its budget.
        seed: of every random choice.
        startup: widths asked for or told before the model is used; None takes one per group, as many as the model has
            slopes, but at least 10, more than the six scalars it fits, and at most 30, so that a large network's
            search is more than a random one.

    Raises:
        ConfigError: `startup` is below 1.
    """

    def __init__(self, domain: BudgetedSpace, *, seed: int, startup: int | None = None) -> None:
        if startup is not None and startup < 1:
            raise ConfigError(f"surrogate: startup must be at least 1, got {startup}")
        self._domain = domain
        self._startup = startup or min(30, max(10, len(domain.space.groups)))
        self._rng = np.random.default_rng(seed)
        self._model = ScoreModel(domain)
        self._fitted = 0  # scores that the kernel's parameters were fitted to
        self._told: list[tuple[Widths, float, float]] = []  # widths, score, noise scale
        self._seen: set[Widths] = set()
        self._draws_next = False

    def ask(self, n: int = 1) -> list[Widths]:
        """Return `n` proposals; they repeat nothing told or pending as long as an unseen member is found."""
        first = n if not self._told else min(n, max(0, self._startup - len(self._seen)))
        proposals = [self._mark(unseen_member(self._domain, self._seen, self._rng)) for _ in range(first)]
        return proposals + (self._maximisers(n - first) if n > first else [])

    def tell(self, trials: Sequence[Trial]) -> None:
        """Add the scores to the model's data; failed trials are only not proposed again."""
        self._seen.update(trial.widths for trial in trials)
        for trial, score in teachable(trials):
            self._told.append((trial.widths, score, _PRUNED_NOISE if trial.state is TrialState.PRUNED else 1.0))

    def _maximisers(self, n: int) -> list[Widths]:
        """Evolve candidates for `n` functions at once and take the best unseen one of each."""
        widths = self._refit()
        functions = self._functions(n)
        best = np.argsort(-self._model.mean(widths), kind="stable")[:_ELITE]
        candidates = self._domain.repair(widths[best])
        values = functions(candidates)
        for _ in range(_ROUNDS):
            children = self._children(candidates, values)
            candidates = np.concatenate([candidates, children])
            values = np.concatenate([values, functions(children)])
        return [self._best_unseen(candidates, values[:, i]) for i in range(n)]

    def _functions(self, n: int) -> ScoreFunctions:
        """The posterior mean and fresh draws in turn, `n` in all."""
        drawn = (np.arange(n) % 2 == 0) == self._draws_next
        self._draws_next = not drawn[-1]
        draws = self._model.sample_functions(int(drawn.sum()), self._rng) if drawn.any() else None

        def functions(widths: WidthMatrix) -> FloatArray:
            values = np.empty((len(widths), n))
            if draws is not None:
                values[:, drawn] = draws(widths)
            if not drawn.all():
                values[:, ~drawn] = self._model.mean(widths)[:, None]
            return values

        return functions

    def _children(self, candidates: IntArray, values: FloatArray) -> IntArray:
        """Repaired children of the best candidates of every function."""
        elite = np.argsort(-values, axis=0, kind="stable")[:_ELITE]  # (E, n)
        shape = (_CHILDREN, elite.shape[1])
        first, second = (
            candidates[np.take_along_axis(elite, self._rng.integers(len(elite), size=shape), axis=0).ravel()]
            for _ in range(2)
        )
        mixed = cross(first, second, self._rng)
        return self._domain.repair(mutate(self._domain, mixed, _MUTATED_GROUPS / mixed.shape[1], self._rng))

    def _best_unseen(self, candidates: IntArray, values: FloatArray) -> Widths:
        ranked = (as_widths(candidates[i]) for i in np.argsort(-values, kind="stable"))
        best = next((widths for widths in ranked if widths not in self._seen), None)
        return self._mark(best or unseen_member(self._domain, self._seen, self._rng))

    def _mark(self, widths: Widths) -> Widths:
        self._seen.add(widths)
        return widths

    def _refit(self) -> IntArray:
        """Fit the model to all scores and return their (N, G) widths."""
        widths = np.array([told[0] for told in self._told])
        scores, noise = (np.array([told[i] for told in self._told]) for i in (1, 2))
        grown = len(self._told) >= _GROWTH * self._fitted
        self._model.fit(widths, scores, noise, kernel=None if grown else self._model.kernel)
        if grown:
            self._fitted = len(self._told)
        return widths
