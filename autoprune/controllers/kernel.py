"""Prior over scores as functions of widths: which inputs, which covariance, and random functions drawn from it.

Everything is in standardised units: an input's unit is the standard deviation of log widths that are uniform over their
range, so each variance below is about the share of the standardised score that its term explains.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, dataclass
from typing import TypeAlias, final

import numpy as np

from autoprune.cost.polynomial import WidthMatrix, log_widths
from autoprune.cost.repair import BudgetedSpace
from autoprune.space.groups import FloatArray

_CONSTANT = 1.0
"""Prior variance of the level; scores are standardised, so it needs no fitting."""

_FREQUENCIES = 256
"""Frequencies of the Fourier features; their error in a covariance is about 1 / sqrt(this)."""


_TYPICAL = 256
"""Random members whose mean is the origin of the inputs."""


@final
@dataclass(frozen=True, slots=True)
class Inputs:
    """What the kernel sees of N width vectors.

    Attributes:
        groups: (N, G) log widths, centred and scaled; 0 where a group has one choice.
        totals: (N, C) log costs in every metric and the sum of log widths, centred and scaled.
    """

    groups: FloatArray
    totals: FloatArray


InputFunction: TypeAlias = Callable[[Inputs], FloatArray]


@final
class InputMap:
    """(N, G) widths -> `Inputs`: centred on the typical member inside the budget, scaled by the space's ranges.

    Not the middle of the ranges: near the corners networks collapse, and a prior centred there is drawn to them.
    """

    def __init__(self, domain: BudgetedSpace) -> None:
        self._domain = domain
        typical = domain.sample(_TYPICAL, np.random.default_rng(0))
        corners = np.array([domain.space.smallest, domain.space.full])
        self._groups = _standardiser(log_widths(typical), log_widths(corners))
        self._totals = _standardiser(self._raw_totals(typical), self._raw_totals(corners))

    def __call__(self, widths: WidthMatrix) -> Inputs:
        """Return the inputs of the (N, G) widths."""
        return Inputs(self._groups(log_widths(widths)), self._totals(self._raw_totals(widths)))

    def _raw_totals(self, widths: WidthMatrix) -> FloatArray:
        costs = [np.log(np.maximum(cost, 1.0)) for cost in self._domain.costs(widths).values()]
        return np.stack([*costs, log_widths(widths).sum(axis=1)], axis=1)


def _standardiser(typical: FloatArray, corners: FloatArray) -> Callable[[FloatArray], FloatArray]:
    centre, spread = typical.mean(axis=0), (corners[1] - corners[0]) / np.sqrt(12)
    spread[spread == 0] = np.inf  # one choice: the input is 0
    return lambda values: (values - centre) / spread


@final
@dataclass(frozen=True, slots=True)
class Gram:
    """(N, M) products and distances between two sets of inputs, all that the kernel is a function of."""

    groups: FloatArray
    totals: FloatArray
    squared_distance: FloatArray

    @classmethod
    def between(cls, a: Inputs, b: Inputs) -> Gram:
        """Return the mean products over groups and totals and the mean squared distance over groups."""
        n = a.groups.shape[1]
        groups = a.groups @ b.groups.T / n
        norms = (a.groups**2).sum(axis=1)[:, None] / n + (b.groups**2).sum(axis=1)[None, :] / n
        return cls(groups, a.totals @ b.totals.T / a.totals.shape[1], np.maximum(norms - 2 * groups, 0.0))

    @classmethod
    def diagonal(cls, a: Inputs) -> Gram:
        """Return the (N,) products of every input with itself."""
        return cls((a.groups**2).mean(axis=1), (a.totals**2).mean(axis=1), np.zeros(len(a.groups)))


@final
@dataclass(frozen=True, slots=True)
class Kernel:
    """Constant + linear + quadratic + smooth residual, with the noise of one score; the defaults are the prior medians.

    Attributes:
        linear: variance of the linear term in the log widths.
        totals: variance of the linear term in log costs and the sum of log widths.
        quadratic: variance of the squares and pairwise products of log widths.
        residual: variance of the squared-exponential term, for what the others cannot express.
        length: its length scale, in standard deviations of the log widths.
        noise: variance of one score around the function.
    """

    linear: float = 0.25
    totals: float = 0.25
    quadratic: float = 0.1
    residual: float = 0.1
    length: float = 1.0
    noise: float = 0.25

    def __call__(self, gram: Gram) -> FloatArray:
        """Return the covariance, in the shape of the Gram arrays."""
        linear, totals, quadratic, residual = self._terms(gram)
        return _CONSTANT + linear + totals + quadratic + residual

    def gradient(self, gram: Gram) -> tuple[FloatArray, ...]:
        """Return the derivatives by the logarithms of all parameters but `noise`, in the order of the fields."""
        terms = self._terms(gram)
        return (*terms, terms[-1] * gram.squared_distance / self.length**2)

    def log(self) -> FloatArray:
        """Return the (6,) logarithms of the parameters."""
        return np.log(astuple(self))

    @classmethod
    def from_log(cls, logarithms: FloatArray) -> Kernel:
        """Return the kernel whose parameters have these (6,) logarithms."""
        return cls(*map(float, np.exp(logarithms)))

    def draw(self, n: int, like: Inputs, rng: np.random.Generator) -> InputFunction:
        """Return `n` random functions of the prior as one function (N inputs) -> (N, n).

        Exact for the constant, linear and quadratic terms; the residual is drawn by random Fourier features
        (Rahimi and Recht 2007, paired sines and cosines).

        Args:
            n: number of functions.
            like: any inputs, for their dimensions.
            rng: draws the functions; the result is deterministic.
        """
        groups, totals = like.groups.shape[1], like.totals.shape[1]
        level = rng.normal(scale=np.sqrt(_CONSTANT), size=n)
        slopes = rng.normal(scale=np.sqrt(self.linear / groups), size=(groups, n))
        total_slopes = rng.normal(scale=np.sqrt(self.totals / totals), size=(totals, n))
        curvature = rng.normal(scale=np.sqrt(self.quadratic) / groups, size=(n, groups, groups))
        frequencies = rng.normal(scale=1 / (self.length * np.sqrt(groups)), size=(groups, _FREQUENCIES))
        amplitude = rng.normal(scale=np.sqrt(self.residual / _FREQUENCIES), size=(2 * _FREQUENCIES, n))

        def functions(inputs: Inputs) -> FloatArray:
            x = inputs.groups
            bends = ((x @ curvature) * x).sum(axis=2).T
            phases = x @ frequencies
            waves = np.concatenate([np.cos(phases), np.sin(phases)], axis=1) @ amplitude
            value: FloatArray = level + x @ slopes + inputs.totals @ total_slopes + bends + waves
            return value

        return functions

    def _terms(self, gram: Gram) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        return (
            self.linear * gram.groups,
            self.totals * gram.totals,
            self.quadratic * gram.groups**2,
            self.residual * np.exp(-gram.squared_distance / (2 * self.length**2)),
        )
