"""Scores of rungs that have different scales, joined: how far each agrees with the next one is learned.

The autoregressive scheme of Kennedy and O'Hagan 2000, https://doi.org/10.1093/biomet/87.1.1, in its recursive form (Le
Gratiet and Garnier 2014, arXiv 1210.0686): given the next rung a score says nothing more of the last one, so the line
from each rung to the next is learned from the candidates that have both. Who went on was chosen by the lower score, and
a regression on that score is not misled by it; a line from the first rung to the last one would be, by the choice
between. What a line leaves over is part noise of the single score, part a law of the widths (`ScoreNoise.shared`);
we take halves instead of fitting them. Scores of a rung count by their ranks (as normal scores), so that a proxy may
have any scale, and any outlier: whatever rises with it says the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from scipy.special import ndtri

from autoprune.space.groups import BoolArray, FloatArray, IntArray

ENOUGH = 3
"""Scores that the last scale needs: with fewer its spread is not known, and the rung below it says which way is up."""

_SLOPE, _SLOPE_ROWS = 0.5, 3.0
"""Prior of a line between standardised scores: a correlation of one half, worth this many candidates; the score of a
rung is expected to rise with that of the next, and a few candidates may say that it falls."""

_LEVEL_ROWS = 1.0
"""How many candidates the prior of its level at zero is worth."""

_SHAPE, _RESIDUAL = 1.5, 0.75
"""Inverse-gamma prior of the variance that a line leaves over: its shape, worth three candidates, and its mean, that
of a correlation of one half."""

_LEAST_SPREAD = 1e-12


@final
@dataclass(frozen=True, slots=True)
class Line:
    """A Bayesian linear regression (normal-inverse-gamma, conjugate; Gelman et al. 2013, section 14.8).

    Attributes:
        coefficients: (1 + F,) posterior means, the level first.
        covariance: (1 + F, 1 + F) of the coefficients, in units of the variance left over.
        left: mean of the variance left over.
    """

    coefficients: FloatArray
    covariance: FloatArray
    left: float

    @classmethod
    def through(cls, inputs: FloatArray, targets: FloatArray) -> Line:
        """The line through (N, F) standardised inputs and (N,) standardised targets; N may be 0."""
        features = _with_level(inputs)
        n, f = inputs.shape
        expected = np.array([0.0, *[_SLOPE / f] * f])
        rows = np.array([_LEVEL_ROWS, *[_SLOPE_ROWS] * f])
        precision = np.diag(rows) + features.T @ features
        covariance: FloatArray = np.linalg.inv(precision).astype(np.float64)
        coefficients: FloatArray = covariance @ (rows * expected + features.T @ targets)
        quadratic = targets @ targets + rows @ expected**2 - coefficients @ precision @ coefficients
        rate = _RESIDUAL * (_SHAPE - 1) + 0.5 * max(0.0, float(quadratic))
        return cls(coefficients, covariance, rate / (_SHAPE + n / 2 - 1))

    def at(self, inputs: FloatArray, spread: FloatArray | None = None) -> tuple[FloatArray, FloatArray]:
        """(N,) predicted targets and the variances of them.

        Args:
            inputs: (N, F).
            spread: (N,) variances of a single input that is itself predicted.
        """
        features = _with_level(inputs)
        mean: FloatArray = features @ self.coefficients
        variance: FloatArray = self.left * (1 + np.einsum("ni,ij,nj->n", features, self.covariance, features))
        if spread is not None:
            variance = variance + spread * (self.coefficients[1] ** 2 + self.left * self.covariance[1, 1])
        return mean, variance


@final
class RungScores:
    """Scores of N candidates at R rungs, on the scale of the last.

    Args:
        scores: (N, R), not a number where a candidate was not scored; rungs are reached in the order of the
            columns.

    Attributes:
        top: the rung on whose scale all is: the last one, or a lower one as long as fewer than `ENOUGH` have reached it
            and more of them the lower one.
        reached: (N,) the highest rung up to `top` that each candidate has a score of; -1 for none.
    """

    def __init__(self, scores: FloatArray) -> None:
        given = np.isfinite(scores)
        counts = given.sum(axis=0)
        self.top = int(np.flatnonzero(counts >= min(ENOUGH, counts.max(initial=0)))[-1])
        self._given: BoolArray = given[:, : self.top + 1]
        self._last: bool = self.top == scores.shape[1] - 1
        self._ranked = np.column_stack([normal_scores(column) for column in scores.T[: self.top + 1]])
        column = np.asarray(scores[:, self.top] if self._last else self._ranked[:, self.top], dtype=np.float64)
        self._values = column
        self._level, self._unit = _standard(column[np.isfinite(column)])
        places = np.arange(self.top + 1)
        self.reached: IntArray = np.where(self._given, places, -1).max(axis=1)
        self._lines = [self._line(rung) for rung in range(self.top)]

    @property
    def on_last_scale(self) -> bool:
        """Whether values are on the scale of the last rung."""
        return self._last

    def from_rung(self, rung: int) -> tuple[FloatArray, FloatArray]:
        """(N,) values that scores of a rung lead to expect, and the standard deviations around them."""
        mean, variance = self._ranked[:, rung], np.zeros(len(self._ranked))
        for line in self._lines[rung:]:
            mean, variance = line.at(mean[:, None], variance)
        return self._level + self._unit * mean, self._unit * np.sqrt(variance)

    def rows(self) -> tuple[IntArray, FloatArray, FloatArray]:
        """(M,) candidates, values and how far these may be off: scores of `top`, then one moved for each candidate.

        The one moved is that of its highest rung below `top`, also where there is a score of `top`: both together say
        what moved ones are off by.
        """
        real = np.flatnonzero(self._given[:, self.top])
        who, values, deviations = [real], [self._values[real]], [np.zeros(len(real))]
        places = np.arange(self.top)
        below = np.where(self._given[:, : self.top], places, -1).max(axis=1, initial=-1)
        for rung in range(self.top):
            here = np.flatnonzero(below == rung)
            mean, deviation = self.from_rung(rung)
            who.append(here)
            values.append(mean[here])
            deviations.append(deviation[here])
        return np.concatenate(who), np.concatenate(values), np.concatenate(deviations)

    def best_known(self) -> FloatArray:
        """(N,) values by the highest rung up to `top` that each candidate has reached."""
        values = self._values.copy()
        for rung in range(self.top):
            here = self.reached == rung
            values[here] = self.from_rung(rung)[0][here]
        return values

    def expected(self, rung: int, others: FloatArray) -> FloatArray:
        """(N,) values expected of candidates from their score at a rung and from what else is believed of them.

        Learned from those that went on; what those have scored later is not looked at for themselves.

        Args:
            rung: below `top`.
            others: (N,) what is believed of each without any score of its own.
        """
        values = self.best_known()
        inputs = np.column_stack([self._ranked[:, rung], (others - self._level) / self._unit])
        known = (self.reached > rung) & np.isfinite(inputs).all(axis=1)
        line = Line.through(inputs[known], (values[known] - self._level) / self._unit)
        return self._level + self._unit * line.at(inputs)[0]

    def _line(self, rung: int) -> Line:
        both = self._given[:, rung] & self._given[:, rung + 1]
        if rung + 1 == self.top:
            targets = (self._values[both] - self._level) / self._unit
        else:
            targets = self._ranked[both, rung + 1]
        return Line.through(self._ranked[both, rung, None], targets)


def normal_scores(scores: FloatArray) -> FloatArray:
    """(N,) quantiles of the standard normal distribution at the scores' ranks; equal scores have equal ones."""
    given = np.isfinite(scores)
    found = np.full(len(scores), np.nan)
    found[given] = ndtri((_ranks(scores[given]) - 0.5) / max(1, given.sum()))
    return found


def _ranks(values: FloatArray) -> FloatArray:
    """(N,) ranks from 1, of equal values their mean; scipy.stats has them, too, but takes half a second to load."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    means: FloatArray = np.cumsum(counts) - (counts - 1) / 2
    return means[which]


def _standard(values: FloatArray) -> tuple[float, float]:
    """Level and spread; a spread of 1 where it is not known."""
    if len(values) < 2:
        return float(values.sum()), 1.0
    level = float(values.mean())
    return level, max(float(values.std()), _LEAST_SPREAD * max(1.0, abs(level)))


def _with_level(inputs: FloatArray) -> FloatArray:
    return np.column_stack([np.ones(len(inputs)), inputs])
