"""Thompson sampling on a Gaussian process over widths: the default controller.

Every second proposal maximises a function drawn from the posterior (Thompson 1933; drawn pathwise, see `posterior`),
the others its mean, because the winner of a search is the posterior mean's. The maximum is sought by a small evolution
of repaired candidates around the best scored widths: in many dimensions a model of few scores is right near its data
only (Eriksson et al. 2019, https://arxiv.org/abs/1910.01739). Evaluating it costs microseconds, training minutes.

Longer than others, as proposals, what they learn from and its snapshot are one state.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import astuple
from typing import Any, final

import numpy as np

from autoprune.config.parts import ChosenPart, NamedPart
from autoprune.config.settings import bind
from autoprune.controllers.base import Controller, Trial, TrialState
from autoprune.controllers.parts.proposals import (
    as_widths,
    cross,
    mutate,
    teachable,
    unseen_member,
    unseen_on_the_way_out,
)
from autoprune.controllers.parts.rungs import JoinedScores
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import ConfigError, SpaceError
from autoprune.proxies import PROXIES
from autoprune.score_model.kernel import Guess, Kernel
from autoprune.score_model.posterior import ScoreFunctions, ScoreModel
from autoprune.space.groups import FloatArray, IntArray, Widths

_POOL = 512
"""Members kept from one proposal to the next: the best by the posterior mean."""

_ELITE, _ROUNDS = 16, 3
"""Parents per function and rounds of the evolution inside one batch of proposals."""

_CHILDREN, _LEAST_CHILDREN = 16, 64
"""Children per function and round, and per round in all."""

_MUTATED_GROUPS = 2.0
"""Groups that a child changes on average."""

_SCORES_PER_PROPOSAL = 16
"""Of a batch: where there are so many times more scores, its proposals hardly need one another's."""

_PENDING_PER_PROPOSAL = 4
"""Of a batch, likewise: where so many times more proposals are being evaluated, its data are old by then anyway."""

_PRUNED_NOISE = 2.0
"""Noise scale of a pruned trial: beyond what its fidelity lacks, its score counts a quarter of a complete one."""

_GROWTH = 1.15
"""The kernel's parameters are fitted again when there are 15 % more scores."""


@final
class Surrogate(Controller):
    """First proposals at every distance from uniform widths, then maxima of the posterior.

    Args:
        domain: the space under its budget.
        seed: of every random choice.
        startup: widths asked for or told before the model is used; None takes one per group, as many as the model has
            slopes, but at least 10, more than the eight scalars it fits, and at most 30 or a third of `trials`, so that
            a large network's search, or a short one, is more than a random one.
        trials: how many proposals the search will make, where that is known.
        prior: a zero-cost proxy of shapes, by its name or as `{name, settings}`: what scores are expected to be like
            before any is seen; None: power laws of the widths.

    Raises:
        ConfigError: `startup` is below 1, or a proxy that looks at more than shapes.
        RegistryError: an unknown proxy.
    """

    def __init__(
        self,
        domain: BudgetedSpace,
        *,
        seed: int,
        startup: int | None = None,
        trials: int | None = None,
        prior: ChosenPart | None = None,
    ) -> None:
        if startup is not None and startup < 1:
            raise ConfigError(f"surrogate: startup must be at least 1, got {startup}")
        self._domain = domain
        most = 30 if trials is None else max(1, min(30, trials // 3))
        self._startup = startup or min(most, max(10, len(domain.space.groups)))
        self._rng = np.random.default_rng(seed)
        self._model = ScoreModel(domain, guess=None if prior is None else _guess(domain, prior))
        self._fitted, self._fitted_afresh = 0, 0  # scores that the kernel's parameters were fitted to
        self._told: list[tuple[Widths, float, float, float, float]] = []  # widths, score, noise scale, fidelity, known
        self._scored: list[Trial] = []  # the same, whole
        self._rungs = False
        self._seen: set[Widths] = set()  # asked for or told; those in the queue, too
        self._ended: set[Widths] = set()
        self._draws_next = False
        self._pooled = 0  # told widths that the pool has
        self._queue: list[Widths] = []  # proposals of the last batch, not asked for yet
        self._pool: IntArray = np.empty((0, len(domain.space.groups)), dtype=np.int64)

    def ask(self, n: int = 1) -> list[Widths]:
        """Return `n` proposals; they repeat nothing told or pending as long as an unseen member is found."""
        first = n if not self._told else min(n, max(0, self._startup - len(self._seen)))
        proposals = [self._mark(unseen_on_the_way_out(self._domain, self._seen, self._rng)) for _ in range(first)]
        if n - first > len(self._queue):
            missing = n - first - len(self._queue)
            known, pending = len(self._told) // _SCORES_PER_PROPOSAL, self._pending // _PENDING_PER_PROPOSAL
            self._queue += self._maximisers(max(missing, known, pending))
        taken, self._queue = self._queue[: n - first], self._queue[n - first :]
        return proposals + taken

    def tell(self, trials: Sequence[Trial]) -> None:
        """Add the scores to the model's data; failed trials are only not proposed again."""
        told = {trial.widths for trial in trials}
        self._seen |= told
        self._ended |= told
        self._queue = [widths for widths in self._queue if widths not in told]  # others may have had them scored
        for trial, score in teachable(trials, at_rungs=True):
            self._scored.append(trial)
            self._rungs |= trial.rungs
            noise = _PRUNED_NOISE if trial.state is TrialState.PRUNED else 1.0
            self._told.append((trial.widths, score, noise, trial.fidelity, trial.noise))

    def snapshot(self) -> Any:
        """See `Controller.snapshot`; the model is fitted anew, but for the parameters of its kernel."""
        return {
            "startup": self._startup,
            "rng": self._rng.bit_generator.state,
            "kernel": astuple(self._model.kernel),
            "fitted": [self._fitted, self._fitted_afresh],
            "draws_next": bool(self._draws_next),
            "pooled": self._pooled,
            "queue": self._queue,
            "pool": self._pool.tolist(),
        }

    def restore(self, snapshot: Any, proposals: Sequence[Widths], trials: Sequence[Trial]) -> bool:
        """See `Controller.restore`."""
        kept = self._kept(snapshot, len(trials))
        if kept is None:
            return False
        for trial in trials:
            self.tell([trial])
        self._rng, self._model.kernel, self._queue, self._pool = kept
        self._fitted, self._fitted_afresh = snapshot["fitted"]
        self._draws_next, self._pooled = snapshot["draws_next"], snapshot["pooled"]
        self._seen.update(proposals, self._queue)
        return True

    def _kept(self, snapshot: Any, told: int) -> tuple[np.random.Generator, Kernel, list[Widths], IntArray] | None:
        """What a snapshot holds that belongs to this controller; None where it does not, or is no snapshot."""
        space, rng = self._domain.space, copy.deepcopy(self._rng)
        try:
            counts = (*snapshot["fitted"], snapshot["pooled"])
            if snapshot["startup"] != self._startup or type(snapshot["draws_next"]) is not bool or len(counts) != 3:
                return None
            if not all(type(count) is int and 0 <= count <= told for count in counts):
                return None
            if not all(type(snapshot[rows]) is list for rows in ("queue", "pool")):
                return None
            rng.bit_generator.state = snapshot["rng"]
            kernel, parameters = Kernel(*snapshot["kernel"]), np.array(snapshot["kernel"], dtype=np.float64)
            if parameters.shape != (len(astuple(kernel)),) or not np.isfinite(parameters).all():
                return None
            queue = [as_widths(widths) for widths in snapshot["queue"]]
            pool = np.array(snapshot["pool"], dtype=np.int64)
            pool = pool.reshape(len(pool), len(space.groups))
            for widths in (*queue, *map(as_widths, pool)):
                space.check(widths)
        except (LookupError, TypeError, ValueError, OverflowError, SpaceError):
            return None
        return rng, kernel, queue, pool

    @property
    def _pending(self) -> int:
        """How many proposals are being evaluated."""
        return len(self._seen) - len(self._ended) - len(self._queue)

    def _maximisers(self, n: int) -> list[Widths]:
        """Evolve candidates for `n` functions at once and take the best unseen one of each."""
        self._refit()
        columns, functions = self._functions(n)
        candidates = self._candidates()
        every = functions(candidates)
        for _ in range(_ROUNDS):
            children = self._children(candidates, every[:, columns])
            candidates = np.concatenate([candidates, children])
            every = np.concatenate([every, functions(children)])
        proposals = [self._best_unseen(candidates, every[:, column]) for column in columns]
        candidates, places = np.unique(candidates, axis=0, return_index=True)
        self._pool = candidates[np.argsort(-every[places, 0], kind="stable")[:_POOL]]
        return proposals

    def _candidates(self) -> IntArray:
        """Members inside the budget to begin with: the pool, and what was told since."""
        if not len(self._pool):
            self._pool = self._domain.sample(_POOL // 4, self._rng)
        told = np.array([widths for widths, *_ in self._told[self._pooled :]], dtype=np.int64)
        self._pooled = len(self._told)
        return np.concatenate([self._pool, self._domain.repair(told)]) if len(told) else self._pool

    def _functions(self, n: int) -> tuple[IntArray, ScoreFunctions]:
        """Posterior mean and fresh draws in turn, `n` in all: which column of the values each one is; the mean is 0."""
        drawn = (np.arange(n) % 2 == 0) == self._draws_next
        self._draws_next = not drawn[-1]
        return np.where(drawn, np.cumsum(drawn), 0), self._model.mean_and_draws(int(drawn.sum()), self._rng)

    def _children(self, candidates: IntArray, values: FloatArray) -> IntArray:
        """Repaired children of the best candidates of every function."""
        elite = np.stack([_first_of_order(column, _ELITE) for column in -values.T], axis=1)  # (E, n)
        n = elite.shape[1]
        shape = (max(_CHILDREN, _LEAST_CHILDREN // n), n)
        first, second = (
            candidates[np.take_along_axis(elite, self._rng.integers(len(elite), size=shape), axis=0).ravel()]
            for _ in range(2)
        )
        mixed = cross(first, second, self._rng)
        return self._domain.repair(mutate(self._domain, mixed, _MUTATED_GROUPS / mixed.shape[1], self._rng))

    def _best_unseen(self, candidates: IntArray, values: FloatArray) -> Widths:
        for most in (_ELITE, len(values)):
            ranked = (as_widths(candidates[i]) for i in _first_of_order(-values, most))
            if best := next((widths for widths in ranked if widths not in self._seen), None):
                return self._mark(best)
        return self._mark(unseen_member(self._domain, self._seen, self._rng))

    def _mark(self, widths: Widths) -> Widths:
        self._seen.add(widths)
        return widths

    def _rows(self) -> tuple[FloatArray, list[FloatArray], FloatArray, FloatArray | None]:
        """Widths; scores, noise scales and fidelities; known noise; bias. Scores of rungs are on one scale."""
        if self._rungs:
            joined = JoinedScores.of(self._scored)
            scores = [joined.scores, joined.scale, np.ones(len(joined.scores))]
            return joined.widths, scores, joined.known, joined.bias
        widths = np.array([told[0] for told in self._told])
        *scores, errors = (np.array([told[i] for told in self._told]) for i in (1, 2, 3, 4))
        return widths, scores, errors, None

    def _refit(self) -> None:
        """Fit the model to all scores; its parameters when there are more, afresh when there are twice as many."""
        n = len(self._told)
        widths, scores, errors, bias = self._rows()
        kernel = self._model.kernel
        if n < _GROWTH * self._fitted:
            self._model.fit(widths, *scores, known=errors, bias=bias, kernel=kernel)
            return
        afresh = n >= 2 * self._fitted_afresh
        self._model.fit(widths, *scores, known=errors, bias=bias, near=None if afresh else kernel)
        self._fitted, self._fitted_afresh = n, n if afresh else self._fitted_afresh


def _guess(domain: BudgetedSpace, chosen: ChosenPart) -> Guess:
    from autoprune.proxies.base import looks_at  # imports torch, which a search without a prior does not need

    part = NamedPart.of(chosen, "search.controller.settings.prior")
    proxy = PROXIES.get(part.name)
    if looks_at(proxy) != "shapes":
        shapes = [name for name in PROXIES.names() if looks_at(PROXIES.get(name)) == "shapes"]
        raise ConfigError(
            f"surrogate: prior {part.name!r} looks at networks, and controllers see only widths; choose a proxy of "
            f"shapes: {', '.join(shapes)}"
        )
    made: Guess = bind(PROXIES, part.name, part.settings)(domain.space)
    return made


def _first_of_order(values: FloatArray, most: int) -> IntArray:
    """The first places of a stable sort, without sorting the rest."""
    if most >= len(values):
        return np.argsort(values, kind="stable")
    among = np.flatnonzero(values <= np.partition(values, most - 1)[most - 1])
    first: IntArray = among[np.argsort(values[among], kind="stable")[:most]]
    return first
