"""Gaussian-process regression of scores on widths: smooths noisy scores, for proposing and for picking the winner.

Rasmussen and Williams 2006, http://gaussianprocess.org/gpml, chapters 2 and 5. Usable alone:

    mean, sd = ScoreModel(domain).fit(widths, scores).predict(candidates)

Longer than others, as the fit and the density that it climbs are read together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias, final

import numpy as np
from scipy.linalg import cho_solve, solve_triangular
from scipy.optimize import minimize
from scipy.special import ndtr

from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.cost.polynomial import WidthMatrix
from autoprune.errors import EvaluationError
from autoprune.score_model.kernel import Gram, Guess, InputMap, Kernel, KernelInputs
from autoprune.score_model.noise import ScoreNoise
from autoprune.space.groups import FloatArray, Widths

ScoreFunctions: TypeAlias = Callable[[WidthMatrix], FloatArray]
"""(N, G) widths -> (N, n) values of n functions."""

_PRIOR_MEDIANS = Kernel().log()
_SIGNAL, _SHARE, _LENGTH, _NOISE = 1.5, 0.75, 0.5, 1.5
"""Spreads of the parameters' logarithms (1.5: 95 % within a factor of 20). How much of the scores is signal is hardly
known beforehand; how it divides among the kernel's terms is known better, and few noisy scores do not tell."""

_TERMS = len(_PRIOR_MEDIANS) - 2
"""Variances of the kernel's terms come first, then length and noise."""


def _prior_precision() -> FloatArray:
    covariance = np.diag([_SHARE**2] * _TERMS + [_LENGTH**2, _NOISE**2])
    covariance[:_TERMS, :_TERMS] += _SIGNAL**2
    return np.linalg.inv(covariance)


_PRIOR_PRECISION = _prior_precision()
_FARTHEST = 6.0
"""Bound of the search from the medians, in logarithms."""

_MOST_ROWS = 200
"""Eight scalars are settled by this many scores; more would only cost time (cubic in the rows)."""

_JITTER = 1e-8

_EQUAL = 1e-12
"""Scores that differ by less, relatively, are equal up to rounding: they say that no widths are better than others."""

_COLLAPSED = 5.0
"""Scores lie no further below the median than so many times their lower decile, 6.4 deviations of normal ones."""


@final
class ScoreModel:
    """The posterior over the noise-free score as a function of the widths.

    Before any score, and where all failed, it is the prior, in units of 1. Scores may have any scale.

    Args:
        domain: gives the ranges of the widths and their closed-form costs.
        guess: what scores are expected to be before any is seen, on any scale; how much of it is true is learned. None:
            power laws of the widths.
    """

    def __init__(self, domain: BudgetedSpace, *, guess: Guess | None = None) -> None:
        self._map = InputMap(domain, guess)
        self._groups = len(domain.space.groups)
        self.fit(np.empty((0, self._groups)), np.empty(0))

    def fit(
        self,
        widths: WidthMatrix,
        scores: FloatArray,
        noise_scale: FloatArray | None = None,
        fidelity: FloatArray | None = None,
        *,
        known: FloatArray | None = None,
        bias: FloatArray | None = None,
        kernel: Kernel | None = None,
        near: Kernel | None = None,
    ) -> ScoreModel:
        """Learn from scores; what was learnt before is forgotten.

        Args:
            widths: (N, G), repeats allowed. The same score of the same widths counts once: it was remembered, or
                computed from the same data again, and would otherwise pass for a score without noise.
            scores: (N,) higher is better; rows that are not finite teach nothing.
            noise_scale: (N,) factors on the standard deviation of the noise, 1 where None; a score averaged over four
                times the data has 0.5.
            fidelity: (N,) shares of the whole training after which the scores were taken, 1 where None. What is
                predicted are scores of whole trainings.
            known: (N,) standard errors of the scores that are known and independent of one another, such as those of
                paired differences, 0 where none is. Their squares are part of the noise; the rest is estimated.
            bias: (N,) standard deviations of what scores of another kind are off by, alike for like widths,
                0 for others.
            kernel: keep these parameters; None finds the most probable ones given the scores.
            near: look for them from these on, such as those of fewer scores, which takes a fraction of the time.

        Returns:
            The model itself.

        Raises:
            EvaluationError: the arrays do not fit together, a noise scale is not positive, a fidelity not in (0, 1],
                or a known standard error is none.
        """
        w, y, noise, off = self._checked(widths, scores, noise_scale, fidelity, known, bias)
        y = _without_collapses(y, noise.fidelity)
        self._mean, self._scale = _level_and_spread(y, noise.fidelity)
        self._inputs, self._widths = self._map(w), w
        if off.any():
            distance = Gram.between(self._inputs, self._inputs).squared_distance
            noise = replace(noise, shared=np.outer(off, off) * np.exp(-distance / 2))
        self._noise = noise.in_units(self._scale)
        self._y = (y - self._mean) / self._scale
        self.kernel = kernel or most_probable_kernel(self._inputs, self._y, self._noise, near=near)
        prior = self.kernel.between(self._inputs, self._inputs)
        self._cholesky = np.linalg.cholesky(prior + _regular(self._noise.covariance(self.kernel.noise)))
        self._weights = self._solve(self._y - self.kernel.mean(self._inputs))
        return self

    def mean(self, widths: WidthMatrix) -> FloatArray:
        """Return the (N,) posterior means at the (N, G) widths; cheaper than `predict`."""
        inputs = self._map(widths)
        cross = self.kernel.between(inputs, self._inputs)
        mean: FloatArray = self._mean + self._scale * (self.kernel.mean(inputs) + cross @ self._weights)
        return mean

    def predict(self, widths: WidthMatrix) -> tuple[FloatArray, FloatArray]:
        """Return the (N,) posterior means and standard deviations of the noise-free scores at the (N, G) widths."""
        inputs = self._map(widths)
        cross = self.kernel.between(inputs, self._inputs)
        white = solve_triangular(self._cholesky, cross.T, lower=True) if len(self._y) else cross.T
        variance = self.kernel(Gram.diagonal(inputs)) - (white**2).sum(axis=0)
        return self.mean(widths), self._scale * np.sqrt(np.maximum(variance, 0.0))

    def left_out(self) -> dict[Widths, float]:
        """Return the posterior mean at all widths that have scores, as it would be without those of these widths.

        By block inversion, as for equation 5.12 of Rasmussen and Williams, which leaves out one score.
        """
        inverse, prior = self._solve(np.eye(len(self._y))), self.kernel.between(self._inputs, self._inputs)
        expected = self.kernel.mean(self._inputs)
        distinct, rows = np.unique(self._widths, axis=0, return_inverse=True)
        found = {}
        for number, widths in enumerate(distinct.astype(np.int64).tolist()):
            own = np.flatnonzero(rows == number)
            gone = np.linalg.solve(inverse[np.ix_(own, own)], self._weights[own])
            weights = self._weights - inverse[:, own] @ gone
            weights[own] = 0.0
            value = expected[own[0]] + prior[own[0]] @ weights
            found[tuple(widths)] = float(self._mean + self._scale * value)
        return found

    def lead(self, widths: WidthMatrix, over: Widths) -> tuple[FloatArray, FloatArray]:
        """Return (N,) means and standard deviations of how far the noise-free scores are above that of `over`.

        Scores of like widths vary together, so this is surer than the two deviations of `predict` would say.
        """
        inputs = self._map(np.concatenate([np.array([over]), np.asarray(widths)]))
        cross = self.kernel.between(inputs, self._inputs)
        white = solve_triangular(self._cholesky, cross.T, lower=True) if len(self._y) else cross.T
        variance = self.kernel(Gram.diagonal(inputs)) - (white**2).sum(axis=0)
        shared = self.kernel.between(inputs[np.array([0])], inputs)[0] - white[:, 0] @ white
        mean = self.kernel.mean(inputs) + cross @ self._weights
        deviation = np.sqrt(np.maximum(variance + variance[0] - 2 * shared, 0.0))
        return self._scale * (mean[1:] - mean[0]), self._scale * deviation[1:]

    def probability_better(self, first: Widths, second: Widths) -> float:
        """Return the probability that the noise-free score of the first width vector is above that of the second.

        One half where they are the same.
        """
        mean, deviation = self.lead(np.array([first]), second)
        return float(ndtr(mean[0] / max(deviation[0], 1e-150)))

    def mean_and_draws(self, n: int, rng: np.random.Generator) -> ScoreFunctions:
        """Return the posterior mean and `n` functions drawn from the posterior, cheap to evaluate at many widths.

        Pathwise conditioning, Wilson et al. 2020, https://arxiv.org/abs/2002.09309, equation 12: a draw from the prior
        plus the update that the difference between scores and that draw calls for.

        Args:
            n: number of draws.
            rng: draws the functions; they themselves are deterministic.

        Returns:
            (N, G) widths -> (N, 1 + n) values, the mean first.
        """
        prior = self.kernel.draw(n, self._inputs, rng)
        noise = self._noise.draw(self.kernel.noise, n, rng)
        weights = np.column_stack([self._weights, self._solve(self._y[:, None] - prior(self._inputs) - noise)])

        def functions(widths: WidthMatrix) -> FloatArray:
            inputs = self._map(widths)
            values = self.kernel.between(inputs, self._inputs) @ weights
            values[:, 0] += self.kernel.mean(inputs)
            values[:, 1:] += prior(inputs)
            scaled: FloatArray = self._mean + self._scale * values
            return scaled

        return functions

    def _solve(self, right: FloatArray) -> FloatArray:
        solved: FloatArray = cho_solve((self._cholesky, True), right) if len(right) else right
        return solved

    def _checked(
        self,
        widths: WidthMatrix,
        scores: FloatArray,
        noise_scale: FloatArray | None,
        fidelity: FloatArray | None,
        known: FloatArray | None,
        bias: FloatArray | None,
    ) -> tuple[FloatArray, FloatArray, ScoreNoise, FloatArray]:
        w, y = np.asarray(widths, dtype=np.float64).reshape(-1, self._groups), np.asarray(scores, dtype=np.float64)
        s, f = (np.ones(y.shape) if x is None else np.asarray(x, dtype=np.float64) for x in (noise_scale, fidelity))
        e, b = (np.zeros(y.shape) if x is None else np.asarray(x, dtype=np.float64) for x in (known, bias))
        if any(given.shape != (len(w),) for given in (y, s, f, e, b)):
            raise EvaluationError(
                f"{len(w)} width vectors need as many scores, noise scales, fidelities and known standard errors, got "
                f"shapes {y.shape}, {s.shape}, {f.shape} and {e.shape}"
            )
        noise = ScoreNoise(s, f, e)
        rows = np.column_stack([w, y, s, f, e])
        distinct = np.sort(np.unique(rows, axis=0, return_index=True)[1])
        chosen = distinct[np.isfinite(y[distinct])]
        return w[chosen], y[chosen], noise[chosen], b[chosen]


def _regular(noise: FloatArray) -> FloatArray:
    """(N, N) covariance of noise, with what keeps a matrix invertible."""
    regular = noise.copy()
    regular[np.diag_indices_from(regular)] += _JITTER
    return regular


def _level_and_spread(y: FloatArray, fidelity: FloatArray) -> tuple[float, float]:
    """Mean of the scores of the highest fidelity, and the standard deviation of all around those of their own.

    The latter is 1 where there is one score or none.
    """
    if len(y) < 2:
        return float(y.sum()), max(1.0, _EQUAL * abs(float(y.sum())))
    level, raised = float(y[fidelity == fidelity.max()].mean()), y.copy()
    for lower in np.unique(fidelity)[:-1]:
        raised[fidelity == lower] += level - y[fidelity == lower].mean()
    return level, max(float(raised.std()), _EQUAL * max(1.0, abs(level)))


def _without_collapses(y: FloatArray, fidelity: FloatArray) -> FloatArray:
    """(N,) scores, those far below all others of their fidelity raised to the lowest that counts.

    A network that did not train at all says that its widths are bad, not how bad: one score at chance level would set
    the scale, and make all good networks look equal.
    """
    clipped = y.copy()
    for level in np.unique(fidelity):
        at = fidelity == level
        median, low = np.percentile(y[at], [50, 10])
        if low < median:
            clipped[at] = np.maximum(y[at], median - _COLLAPSED * (median - low))
    return clipped


def most_probable_kernel(
    inputs: KernelInputs, y: FloatArray, noise: ScoreNoise, *, near: Kernel | None = None
) -> Kernel:
    """Return the kernel parameters of largest posterior density given standardised scores, by L-BFGS.

    Args:
        inputs: of N width vectors; an even selection of them where they are many.
        y: (N,) standardised scores.
        noise: of the N scores.
        near: where to begin; None tries two starts.
    """
    if len(y) < 2:
        return Kernel()
    rows = np.unique(np.linspace(0, len(y) - 1, _MOST_ROWS).astype(np.int64))
    chosen = inputs[rows]
    arguments = (chosen, Gram.between(chosen, chosen), y[rows], noise[rows])
    quiet = _PRIOR_MEDIANS.copy()
    quiet[-1] -= 3.0  # the evidence may have two modes: all noise, or hardly any
    bounds = list(zip(_PRIOR_MEDIANS - _FARTHEST, _PRIOR_MEDIANS + _FARTHEST, strict=True))
    found = [
        minimize(negative_log_density, start, args=arguments, jac=True, method="L-BFGS-B", bounds=bounds)
        for start in ((near.log(),) if near else (_PRIOR_MEDIANS, quiet))
    ]
    return Kernel.from_log(min(found, key=lambda result: float(result.fun)).x)


def negative_log_density(
    logarithms: FloatArray, inputs: KernelInputs, gram: Gram, y: FloatArray, noise: ScoreNoise
) -> tuple[float, FloatArray]:
    """Return minus the log of evidence times prior, and its gradient (Rasmussen and Williams, equations 5.8 and 5.9).

    Args:
        logarithms: (8,) of the parameters of `Kernel`, in the order of its fields.
        inputs: of N width vectors.
        gram: of the inputs with themselves.
        y: (N,) standardised scores.
        noise: of the N scores.

    Returns:
        The value, without the constants, and its (8,) gradient.
    """
    kernel = Kernel.from_log(logarithms)
    prior, gradient = kernel.with_gradient(gram)
    cholesky = np.linalg.cholesky(prior + _regular(noise.covariance(kernel.noise)))
    inverse = cho_solve((cholesky, True), np.eye(len(y)))
    expected = kernel.mean(inputs)
    deviations = y - expected
    weights = inverse @ deviations
    deviation = logarithms - _PRIOR_MEDIANS
    pull = _PRIOR_PRECISION @ deviation
    value = 0.5 * deviations @ weights + np.log(np.diag(cholesky)).sum() + 0.5 * deviation @ pull
    slope = inverse - np.outer(weights, weights)
    by_kernel = [0.5 * np.vdot(slope, derivative) for derivative in gradient]
    by_noise = 0.5 * np.diag(slope) @ noise.estimated(kernel.noise)
    by_trend = -0.5 * expected @ weights
    return float(value), np.array([by_trend, *by_kernel, by_noise]) + pull
