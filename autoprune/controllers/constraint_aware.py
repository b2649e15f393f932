"""Constraint-aware compression: Chen, Tung, Vedula and Mori, ECCV 2018, https://doi.org/10.1007/978-3-030-01237-3_25.

Bayesian optimisation by expected improvement whose constraint cools down: it starts looser than what is asked for, and
each of a few stages searches under a tighter one. The constraint follows Newton's law of cooling; five stages,
coefficient 0.5 and 20 random points first are the settings of the authors' code.

Departures: costs have a closed form here, so a constraint is known rather than modelled by a second process (section
3.2), and the improvement is sought among networks that meet it. Scores of earlier stages stay in the model, since the
network that they are taken on stays the same: the authors fine-tune it between stages. All limits of a job
cool alike; lower ends hold in the last stage alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import numpy as np
from scipy.special import ndtr

from autoprune.controllers.base import Controller, Trial
from autoprune.controllers.parts.history import History
from autoprune.controllers.parts.proposals import as_widths, cross, mutate, unseen_member
from autoprune.cost.budget.budget import Bound
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import ConfigError
from autoprune.score_model.posterior import ScoreModel
from autoprune.space.groups import FloatArray, IntArray, Widths

_STARTUP, _UNKNOWN_LENGTH = 20, 24
_POOL, _ELITE, _CHILDREN, _ROUNDS = 128, 16, 64, 3
"""Random members, parents and children of the search for the largest expected improvement, and its rounds."""
_GROWTH = 1.15
"""The model's parameters are fitted again when there are 15 % more scores."""


@final
class ConstraintAware(Controller):
    """Expected improvement under a budget that shrinks to the job's; proposals before the last stage exceed it.

    Args:
        domain: the space under its budget.
        seed: of every random choice.
        trials: how many proposals the search will make, where that is known.
        stages: constraints, the last one the job's; each has as many proposals.
        cooling: coefficient of the exponential; the larger, the earlier the constraint is near the job's.
        startup: random proposals before the model is used; None: 20, at most a third of `trials`.

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
        stages: int = 5,
        cooling: float = 0.5,
        startup: int | None = None,
    ) -> None:
        usual = _STARTUP if trials is None else max(1, min(_STARTUP, trials // 3))
        self._startup = usual if startup is None else startup
        for name, value in (("stages", stages), ("startup", self._startup)):
            if value < 1:
                raise ConfigError(f"constraint_aware: {name} must be at least 1, got {value}")
        if not 0 < cooling < math.inf:
            raise ConfigError(f"constraint_aware: cooling must be a number above 0, got {cooling!r}")
        self._domain, self._trials = domain, trials or _UNKNOWN_LENGTH
        full = max(1.0, float(domain.budget.usage(np.array([domain.space.full]))[0]))
        self.constraints = tuple(_cooled(full, stage, stages, cooling) for stage in range(1, stages + 1))
        self._domains: dict[int, BudgetedSpace] = {stages - 1: domain}
        self._rng = np.random.default_rng(seed)
        self._history = History(domain)
        self._model, self._fitted = ScoreModel(domain), 0
        self._told: list[tuple[Widths, float, float, float]] = []  # widths, score, fidelity, known standard error
        self._asked = 0

    def ask(self, n: int = 1) -> list[Widths]:
        """Return `n` proposals that meet the constraint of their stage."""
        return [self._history.mark(self._propose()) for _ in range(n)]

    def tell(self, trials: Sequence[Trial]) -> None:
        """Add the scores to the model's data."""
        for trial, score in self._history.tell(trials):
            self._told.append((trial.widths, score, trial.fidelity, trial.noise))

    def _propose(self) -> Widths:
        stage = min(len(self.constraints), math.ceil((self._asked + 1) * len(self.constraints) / self._trials)) - 1
        self._asked += 1
        domain = self._stage(stage)
        if self._asked <= self._startup or len(self._told) < 2:
            return unseen_member(domain, self._history.seen, self._rng)
        return self._most_improving(domain)

    def _stage(self, stage: int) -> BudgetedSpace:
        if stage not in self._domains:
            looser = self.constraints[stage]
            limits: dict[str, Bound] = {x.metric: {"max": looser * x.upper} for x in self._domain.budget.limits}
            self._domains[stage] = self._domain.under(limits)
        return self._domains[stage]

    def _most_improving(self, domain: BudgetedSpace) -> Widths:
        """The unseen member of largest expected improvement, by a small evolution of repaired members."""
        self._refit()
        inside = self._inside(domain)
        incumbent = float(self._model.mean(inside).max()) if len(inside) else -np.inf
        members = np.concatenate([domain.sample(_POOL, self._rng), inside])
        value = self._improvement(members, incumbent)
        for _ in range(_ROUNDS):
            elite = members[np.argsort(-value, kind="stable")[:_ELITE]]
            first, second = (elite[self._rng.integers(len(elite), size=_CHILDREN)] for _ in range(2))
            mixed = cross(first, second, self._rng)
            children = domain.repair(mutate(domain, mixed, 2 / mixed.shape[1], self._rng))
            members = np.concatenate([members, children])
            value = np.concatenate([value, self._improvement(children, incumbent)])
        for place in np.argsort(-value, kind="stable"):
            if (widths := as_widths(members[place])) not in self._history.seen:
                return widths
        return unseen_member(domain, self._history.seen, self._rng)

    def _inside(self, domain: BudgetedSpace) -> IntArray:
        """(N, G) scored widths that meet a constraint."""
        scored = np.array([widths for widths, *_ in self._told], dtype=np.int64)
        inside: IntArray = scored[domain.feasible(scored)]
        return inside

    def _improvement(self, members: IntArray, incumbent: float) -> FloatArray:
        """(N,) expected improvement over the incumbent's posterior mean, as scores are noisy; the mean without one."""
        mean, deviation = self._model.predict(members)
        if not np.isfinite(incumbent):
            return mean
        deviation = np.maximum(deviation, 1e-12)
        z = (mean - incumbent) / deviation
        expected: FloatArray = deviation * (z * ndtr(z) + np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi))
        return expected

    def _refit(self) -> None:
        widths = np.array([told[0] for told in self._told])
        scores, fidelity, known = (np.array([told[i] for told in self._told]) for i in (1, 2, 3))
        kernel = None if len(scores) >= _GROWTH * self._fitted else self._model.kernel
        self._model.fit(widths, scores, fidelity=fidelity, known=known, kernel=kernel)
        if kernel is None:
            self._fitted = len(scores)


def _cooled(full: float, stage: int, stages: int, cooling: float) -> float:
    """The constraint of a stage from 1 on, in units of the job's: from the full network's cost down to 1."""
    return 1.0 + (full - 1.0) * (math.exp(-cooling * stage) - math.exp(-cooling * stages))
