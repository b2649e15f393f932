"""CMA-ES: Hansen 2016, "The CMA Evolution Strategy: A Tutorial", https://arxiv.org/abs/1604.00772, Fig. 6 and Table 1.

The (mu/mu_w, lambda) strategy with its default settings, over the logarithms of the groups' ratios. Symbols and
equation numbers are the tutorial's.

Departures: samples are repaired onto the budget, which scales all ratios alike: the strategy keeps the sampled point,
shifted to where its widths ended. A generation is any lambda scored trials, in the order in which they were told, so
that nothing waits; what others proposed, and repeats that had to be varied, are injected with a bounded step (Hansen
2011, https://arxiv.org/abs/1110.4181). Only better halves count: the weights are not negative.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import numpy as np

from autoprune.controllers.base import Controller, Trial
from autoprune.controllers.parts.history import History
from autoprune.controllers.parts.proposals import as_widths, unseen_near
from autoprune.controllers.parts.ratios import from_log_ratios, log_ratios, smallest_log_ratios
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import ConfigError
from autoprune.space.groups import FloatArray, Widths

_LEAST_VARIANCE = 1e-20


@final
class CmaEs(Controller):
    """A normal distribution of log ratios that moves to, and stretches along, what scores well.

    Args:
        domain: the space under its budget.
        seed: of every sample.
        population: lambda, trials per generation; None: 4 + floor(3 log G), the tutorial's eq. 48.
        sigma: initial standard deviation of a ratio's logarithm.

    Raises:
        ConfigError: a setting is out of its range.
    """

    def __init__(self, domain: BudgetedSpace, *, seed: int, population: int | None = None, sigma: float = 0.3) -> None:
        if population is not None and population < 2:
            raise ConfigError(f"cmaes: population must be at least 2, got {population}")
        if not 0 < sigma < math.inf:
            raise ConfigError(f"cmaes: sigma must be above 0, got {sigma}")
        self._domain = domain
        self._rng = np.random.default_rng(seed)
        self._history = History(domain)
        n = len(domain.space.groups)
        self._lambda = population or 4 + int(3 * math.log(n))
        self._search = _Distribution(log_ratios(domain, [domain.uniform()])[0], sigma, self._lambda)
        self._least = smallest_log_ratios(domain)
        self._points: dict[Widths, FloatArray] = {}  # samples that are pending
        self._generation: list[tuple[FloatArray, float]] = []

    def ask(self, n: int = 1) -> list[Widths]:
        """Return `n` samples, repaired; a repeat is varied."""
        return [self._history.mark(self._propose()) for _ in range(n)]

    def tell(self, trials: Sequence[Trial]) -> None:
        """Update the distribution after every lambda scored trials."""
        for trial, score in self._history.tell(trials):
            if trial.widths in self._points:
                self._generation.append((self._points[trial.widths], score))
            elif self._domain.feasible(np.array([trial.widths]))[0]:
                self._generation.append((log_ratios(self._domain, [trial.widths])[0], score))
            if len(self._generation) == self._lambda:
                ranked = sorted(self._generation, key=lambda member: -member[1])
                self._search.update(np.array([x for x, _ in ranked]))
                self._generation = []
        for trial in trials:
            self._points.pop(trial.widths, None)

    def _propose(self) -> Widths:
        x = np.clip(self._search.sample(self._rng), self._least, 0.0)
        widths = as_widths(self._domain.repair(from_log_ratios(self._domain, x))[0])
        if widths in self._history.seen:
            return unseen_near(self._domain, widths, self._history.seen, self._rng)
        self._points[widths] = x + (log_ratios(self._domain, [widths])[0] - x).mean()
        return widths


@final
class _Distribution:
    """N(m, sigma^2 C) and the paths by which sigma and C adapt."""

    def __init__(self, mean: FloatArray, sigma: float, lambda_: int) -> None:
        n, mu = len(mean), lambda_ // 2
        weights = math.log((lambda_ + 1) / 2) - np.log(np.arange(1, mu + 1))  # eq. 49
        self._w = weights / weights.sum()  # eq. 53, the positive ones
        mu_eff = 1 / float(np.square(self._w).sum())  # eq. 8
        self._c_c = (4 + mu_eff / n) / (n + 4 + 2 * mu_eff / n)  # eq. 56
        self._c_1 = 2 / ((n + 1.3) ** 2 + mu_eff)  # eq. 57
        self._c_mu = min(1 - self._c_1, 2 * (0.25 + mu_eff + 1 / mu_eff - 2) / ((n + 2) ** 2 + mu_eff))  # eq. 58
        self._c_s = (mu_eff + 2) / (n + mu_eff + 5)  # eq. 55
        self._d_s = 1 + 2 * max(0.0, math.sqrt((mu_eff - 1) / (n + 1)) - 1) + self._c_s  # eq. 55
        self._mu_eff, self._n = mu_eff, n
        self._chi_n = math.sqrt(n) * (1 - 1 / (4 * n) + 1 / (21 * n**2))  # E||N(0, I)||
        self._longest = math.sqrt(n) + 2 * n / (n + 2)  # Hansen 2011, c_y
        self._m, self._sigma, self._largest_sigma = mean.copy(), sigma, 3 * sigma
        self._C = np.eye(n)
        self._p_c, self._p_s = np.zeros(n), np.zeros(n)
        self._generations = 0
        self._B, self._D = np.eye(n), np.ones(n)

    def sample(self, rng: np.random.Generator) -> FloatArray:
        """(G,) x ~ N(m, sigma^2 C), eq. 38-40."""
        y: FloatArray = self._B @ (self._D * rng.standard_normal(self._n))
        return self._m + self._sigma * y

    def update(self, ranked: FloatArray) -> None:
        """Learn from the (lambda, G) points of a generation, the best first."""
        whiten = self._B @ np.diag(1 / self._D) @ self._B.T  # C^(-1/2)
        y = (ranked[: len(self._w)] - self._m) / self._sigma
        lengths = np.linalg.norm(y @ whiten, axis=1)
        y *= np.minimum(1.0, self._longest / np.maximum(lengths, 1e-12))[:, None]  # what was injected from afar
        y_w = self._w @ y  # eq. 41
        self._m = self._m + self._sigma * y_w  # eq. 42
        self._generations += 1
        self._p_s = (1 - self._c_s) * self._p_s + math.sqrt(self._c_s * (2 - self._c_s) * self._mu_eff) * (
            whiten @ y_w
        )  # eq. 43
        length = float(np.linalg.norm(self._p_s))
        faded = 1 - (1 - self._c_s) ** (2 * self._generations)  # the tutorial's g + 1
        h_s = float(length / math.sqrt(faded) < (1.4 + 2 / (self._n + 1)) * self._chi_n)
        self._p_c = (1 - self._c_c) * self._p_c + h_s * math.sqrt(
            self._c_c * (2 - self._c_c) * self._mu_eff
        ) * y_w  # eq. 45
        lost = (1 - h_s) * self._c_c * (2 - self._c_c)
        self._C = (
            (1 + self._c_1 * lost - self._c_1 - self._c_mu) * self._C
            + self._c_1 * np.outer(self._p_c, self._p_c)
            + self._c_mu * (self._w * y.T) @ y
        )  # eq. 47
        grown = self._sigma * math.exp(min(1.0, self._c_s / self._d_s * (length / self._chi_n - 1)))  # eq. 44
        self._sigma = min(grown, self._largest_sigma)
        eigenvalues, self._B = np.linalg.eigh((self._C + self._C.T) / 2)
        self._D = np.sqrt(np.maximum(eigenvalues, _LEAST_VARIANCE))
