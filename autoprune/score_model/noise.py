"""How far scores may lie from the truth: noise of each score's own, and what all scores of a lower fidelity lack.

Scores of another kind, brought onto the scale of these, are off by a law of the widths of their own, too: alike where
widths are alike (the discrepancy of Kennedy and O'Hagan 2000), so that many of them do not outvote a few real ones.

Noise of a score's own has a part that is estimated from all scores, and one that is known where its standard error is.

A training that was stopped early is scored lower than it would have ended, at its own epoch about as much as any other.
That part is no noise of its own: it is learned, as freely as the level of the scores is.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import final

import numpy as np

from autoprune.errors import EvaluationError
from autoprune.space.groups import BoolArray, FloatArray, IntArray

_DRIFT = 100.0
"""Variance, in units of the scores' own at one fidelity, of what a fidelity of 1 / e lacks. Early scores lie many
standard deviations below complete ones, and nobody knows how many."""


@final
@dataclass(frozen=True, slots=True)
class ScoreNoise:
    """Of N scores.

    What a fidelity lacks is a Brownian motion in the logarithm of the fidelity that begins at zero for a complete
    training: it has any shape, and neighbouring fidelities lack about as much.

    Attributes:
        scale: (N,) factors on the standard deviation of a score's own noise.
        fidelity: (N,) share of the whole training after which the score was taken, 1 for a complete one.
        known: (N,), or one for all: standard deviations of a score's own noise that are known; the rest is estimated.
        shared: (N, N) covariance of what scores of another kind are off by, alike for like widths; None: there are
            none.

    Raises:
        EvaluationError: a scale is not positive, a fidelity not in (0, 1], or a known deviation negative or not finite.
    """

    scale: FloatArray
    fidelity: FloatArray
    known: FloatArray = field(default_factory=lambda: np.zeros(()))
    shared: FloatArray | None = None

    def __post_init__(self) -> None:
        if not (self.scale > 0).all():
            raise EvaluationError(f"noise scales must be above 0, got {self.scale.min()}")
        if not ((self.fidelity > 0) & (self.fidelity <= 1)).all():
            wrong = self.fidelity[~((self.fidelity > 0) & (self.fidelity <= 1))][0]
            raise EvaluationError(f"fidelities are shares of a training, above 0 and at most 1, got {wrong}")
        if not ((self.known >= 0) & (self.known < np.inf)).all():
            raise EvaluationError("known standard errors must be finite numbers of at least 0; 0 where none is known")
        object.__setattr__(self, "known", np.broadcast_to(self.known, self.scale.shape))

    @property
    def complete(self) -> BoolArray:
        """(N,) True where the training was a whole one."""
        whole: BoolArray = self.fidelity == 1.0
        return whole

    def __getitem__(self, rows: IntArray) -> ScoreNoise:
        """Return the noise of some of the scores."""
        shared = None if self.shared is None else self.shared[np.ix_(rows, rows)]
        return ScoreNoise(self.scale[rows], self.fidelity[rows], self.known[rows], shared)

    def in_units(self, unit: float) -> ScoreNoise:
        """Return the noise of the scores divided by a number."""
        return replace(self, known=self.known / unit, shared=None if self.shared is None else self.shared / unit**2)

    def estimated(self, of_one: float) -> FloatArray:
        """Return the (N,) variances of the part that is not known, given that of a score of scale 1."""
        rest: FloatArray = of_one * self.scale**2
        return rest

    def variance(self, of_one: float) -> FloatArray:
        """Return the (N,) variances of each score's own noise, given the estimated one of scale 1."""
        own: FloatArray = self.estimated(of_one) + self.known**2
        return own

    def covariance(self, of_one: float) -> FloatArray:
        """Return the (N, N) covariance of all noise."""
        own = np.diag(self.variance(of_one))
        if self.shared is not None:
            own += self.shared
        if self.complete.all():
            return own
        lacks = -np.log(self.fidelity)
        shared: FloatArray = _DRIFT * np.minimum.outer(lacks, lacks) + own
        return shared

    def draw(self, of_one: float, n: int, rng: np.random.Generator) -> FloatArray:
        """Return (N, n) random noise."""
        own: FloatArray = np.sqrt(self.variance(of_one))[:, None] * rng.standard_normal((len(self.scale), n))
        if self.shared is not None:
            values, vectors = np.linalg.eigh(self.shared)
            own += vectors @ (np.sqrt(np.maximum(values, 0.0))[:, None] * rng.standard_normal((len(values), n)))
        lacks, level = np.unique(-np.log(self.fidelity), return_inverse=True)
        if not lacks.any():
            return own
        steps = np.sqrt(_DRIFT * np.diff(lacks, prepend=0.0))[:, None] * rng.standard_normal((len(lacks), n))
        drawn: FloatArray = own + steps.cumsum(axis=0)[level]
        return drawn
