"""Prior over scores as functions of widths: which inputs, which covariance, and random functions drawn from it.

The main term is a power law per group: what a group lacks costs `effect * (width / full) ** -0.75`. Errors of trained
networks fall with their size by such laws (Hestness et al. 2017, https://arxiv.org/abs/1712.00409; Rosenfeld et al.
2020, https://arxiv.org/abs/1909.12673), so returns diminish and the best widths of a budget lie inside the space; a
line in the log widths would send them to its corners. Before any score is seen, wider counts as better and the full
network as balanced: its designer would have moved width to where it does more for its cost, so the effect of a group is
expected to be in proportion to its share of the cost, and uniform widths to be the best ones. Few noisy scores then
leave the answer near uniform, and a group moves as far from it as the scores say. Everything else (effects of single
groups, quadratic terms, a smooth residual) has mean 0. Inputs are standardised, so each variance below is about the
share of the score that its term explains.

Longer than others, as inputs, covariance and random functions of it must agree term by term.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, dataclass
from typing import TypeAlias, final

import numpy as np

from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.cost.polynomial import WidthMatrix, log_widths
from autoprune.space.groups import FloatArray, IntArray

_CONSTANT = 1.0
"""Prior variance of the level; scores are standardised, so it needs no fitting."""

_FREQUENCIES = 256
"""Frequencies of the Fourier features; their error in a covariance is about 1 / sqrt(this)."""


_CELLS = 1 << 14
"""Entries of a covariance that are worked on at once: they stay in the cache."""

_TYPICAL = 256
"""Random members whose mean is the origin of the inputs."""


EXPONENT = -0.75
"""Of the power law: between the square root and the inverse width, the bounds for squared errors of networks of n units
(1 / n: Barron 1993, https://doi.org/10.1109/18.256500)."""

_STEP = 0.1
"""Of the logarithm of a width, to see what the width costs."""

_LEAST_SHARE = 0.1
"""Of the mean share: a group that costs next to nothing may still matter."""

_LEAST_SPREAD = 0.1
"""Of what a group can do at most: where the members of a budget hardly differ, that is not blown up."""


@final
@dataclass(frozen=True, slots=True)
class KernelInputs:
    """What the kernel sees of N width vectors.

    Attributes:
        groups: (N, G) log widths, centred and scaled; 0 where a group has one choice.
        returns: (N, G) minus the power law of every group times its share of the cost, centred, and scaled such that
            the sum over independent groups would have variance 1; rises with the width, ever less.
        totals: (N, C) log FLOPs, log parameters, log costs that are limited, sum of log widths; centred and scaled.
        prior: (N,) a guess of the scores, centred and scaled; None where there is none.
    """

    groups: FloatArray
    returns: FloatArray
    totals: FloatArray
    prior: FloatArray | None = None

    @property
    def trend(self) -> FloatArray:
        """(N,) how good the widths are expected to be: the guess, or else the sum of the returns over the groups."""
        if self.prior is not None:
            return self.prior
        total: FloatArray = self.returns.sum(axis=1)
        return total

    def __getitem__(self, rows: IntArray) -> KernelInputs:
        """Return the inputs of some of the width vectors."""
        prior = None if self.prior is None else self.prior[rows]
        return KernelInputs(self.groups[rows], self.returns[rows], self.totals[rows], prior)


InputFunction: TypeAlias = Callable[[KernelInputs], FloatArray]

Guess: TypeAlias = Callable[[IntArray], FloatArray]
"""(N, G) widths -> (N,) how good they are thought to be, on any scale; such as a zero-cost proxy of shapes."""


@final
class InputMap:
    """(N, G) widths -> `KernelInputs`: centred on the typical member inside the budget, scaled by the space's ranges.

    Not the middle of the ranges: near the corners networks collapse, and a prior centred there is drawn to them.

    Args:
        domain: the space under its budget.
        guess: takes the place of the power laws in what scores are expected to be; the power laws remain as what they
            may differ by.
    """

    def __init__(self, domain: BudgetedSpace, guess: Guess | None = None) -> None:
        metrics = dict.fromkeys(["flops", "params", *(limit.metric for limit in domain.budget.limits)])
        self._costs = [domain.budget.metrics[name] for name in metrics]
        typical = domain.sample(_TYPICAL, np.random.default_rng(0))
        corners = np.array([domain.space.smallest, domain.space.full])
        self._log_full = log_widths(domain.space.full)
        self._shares = _cost_shares(domain)
        self._groups = _standardiser(log_widths(typical), log_widths(corners))
        self._returns = _jointly(self._raw_returns(typical), self._raw_returns(corners))
        self._totals = _standardiser(self._raw_totals(typical), self._raw_totals(corners))
        self._guess = guess
        if guess is not None:
            self._prior = _standardiser(guess(typical)[:, None], guess(corners)[:, None])

    def __call__(self, widths: WidthMatrix) -> KernelInputs:
        """Return the inputs of the (N, G) widths."""
        groups, returns = self._groups(log_widths(widths)), self._returns(self._raw_returns(widths))
        prior = None if self._guess is None else self._prior(self._guess(np.asarray(widths))[:, None])[:, 0]
        return KernelInputs(groups, returns, self._totals(self._raw_totals(widths)), prior)

    def _raw_returns(self, widths: WidthMatrix) -> FloatArray:
        power: FloatArray = -np.exp(EXPONENT * (log_widths(widths) - self._log_full))
        return self._shares * power

    def _raw_totals(self, widths: WidthMatrix) -> FloatArray:
        costs = [np.log(np.maximum(cost(widths), 1e-9)) for cost in self._costs]
        return np.stack([*costs, log_widths(widths).sum(axis=1)], axis=1)


def _standardiser(typical: FloatArray, corners: FloatArray) -> Callable[[FloatArray], FloatArray]:
    centre = typical.mean(axis=0)
    spread = np.maximum(typical.std(axis=0), _LEAST_SPREAD * (corners[1] - corners[0]))
    spread[spread == 0] = np.inf  # one choice: the input is 0
    return lambda values: (values - centre) / spread


def _jointly(typical: FloatArray, corners: FloatArray) -> Callable[[FloatArray], FloatArray]:
    centre = typical.mean(axis=0)
    spread = np.linalg.norm(np.maximum(typical.std(axis=0), _LEAST_SPREAD * (corners[1] - corners[0])))
    return lambda values: (values - centre) / (spread or 1.0)


def _cost_shares(domain: BudgetedSpace) -> FloatArray:
    """(G,) share of the limited costs that each group accounts for: the percent they fall by with 1 % of its width."""
    full = np.array(domain.space.full, dtype=np.float64)
    narrower = np.vstack([full, np.where(np.eye(len(full), dtype=np.bool_), full * np.exp(-_STEP), full)])
    costs = [domain.budget.metrics[limit.metric](narrower) for limit in domain.budget.limits]
    shares: FloatArray = np.mean([1 - cost[1:] / cost[0] for cost in costs], axis=0) / _STEP
    return np.maximum(shares, _LEAST_SHARE * max(float(shares.mean()), 1e-9))


@final
@dataclass(frozen=True, slots=True)
class Gram:
    """Products and distances between two sets of inputs, (N, M) each, all that the kernel is a function of.

    Attributes:
        common: product of the trends.
        returns: product of the returns, summed over the groups.
        totals: mean product over the totals.
        groups: mean product over groups of the log widths.
        squared_distance: mean squared distance over groups of the log widths.
    """

    common: FloatArray
    returns: FloatArray
    totals: FloatArray
    groups: FloatArray
    squared_distance: FloatArray

    @classmethod
    def between(cls, a: KernelInputs, b: KernelInputs) -> Gram:
        """Return the products and distances of every input of `a` with every one of `b`."""
        n = a.groups.shape[1]
        groups = a.groups @ b.groups.T / n
        norms = (a.groups**2).sum(axis=1)[:, None] / n + (b.groups**2).sum(axis=1)[None, :] / n
        return cls(
            np.outer(a.trend, b.trend),
            a.returns @ b.returns.T,
            a.totals @ b.totals.T / a.totals.shape[1],
            groups,
            np.maximum(norms - 2 * groups, 0.0),
        )

    @classmethod
    def diagonal(cls, a: KernelInputs) -> Gram:
        """Return the (N,) products of every input with itself."""
        common, returns = a.trend**2, (a.returns**2).sum(axis=1)
        return cls(common, returns, (a.totals**2).mean(axis=1), (a.groups**2).mean(axis=1), np.zeros(len(a.groups)))


@final
@dataclass(frozen=True, slots=True)
class Kernel:
    """Power laws + totals + quadratic + smooth residual, with the noise of one score; the defaults are prior medians.

    Attributes:
        trend: square of the effect that the power laws are expected to have; the effect itself is positive.
        common: variance of what it differs by in all groups alike.
        returns: variance of what it differs by in each group; a third of `trend` means by about 60 %.
        totals: variance of the linear term in log costs and the sum of log widths.
        quadratic: variance of the squares and pairwise products of log widths.
        residual: variance of the squared-exponential term, for what the others cannot express.
        length: its length scale, in standard deviations of the log widths.
        noise: variance of one score around the function.
    """

    trend: float = 0.5
    common: float = 0.05
    returns: float = 0.15
    totals: float = 0.02
    quadratic: float = 0.1
    residual: float = 0.1
    length: float = 1.0
    noise: float = 0.5

    def __call__(self, gram: Gram) -> FloatArray:
        """Return the covariance, in the shape of the Gram arrays."""
        return _sum(self._terms(gram))

    def between(self, a: KernelInputs, b: KernelInputs) -> FloatArray:
        """Return the (N, M) covariances of two sets of inputs, `self(Gram.between(a, b))` in a third of the time."""
        products = (a.groups / a.groups.shape[1]) @ b.groups.T
        covariance = self._linear(a) @ self._linear(b).T
        of_a, of_b = (a.groups**2).mean(axis=1)[:, None] / 2, (b.groups**2).mean(axis=1) / 2
        rows = max(1, _CELLS // max(1, products.shape[1]))
        for start in range(0, len(products), rows):
            here = slice(start, start + rows)
            part, of_part = products[here], covariance[here]
            of_part += self.quadratic * part**2
            part -= of_a[here]
            part -= of_b  # minus half of the squared distance
            part /= self.length**2
            np.exp(np.minimum(part, 0.0, out=part), out=part)
            part *= self.residual
            of_part += part
        return covariance

    def mean(self, inputs: KernelInputs) -> FloatArray:
        """Return the (N,) expected values: more width is better, ever less so."""
        expected: FloatArray = np.sqrt(self.trend) * inputs.trend
        return expected

    def with_gradient(self, gram: Gram) -> tuple[FloatArray, tuple[FloatArray, ...]]:
        """Return the covariance, and its derivatives by the logarithms of all parameters of its terms, in their order.

        The terms are in both.
        """
        terms = self._terms(gram)
        return _sum(terms), (*terms, terms[-1] * gram.squared_distance / self.length**2)

    def log(self) -> FloatArray:
        """Return the (8,) logarithms of the parameters."""
        return np.log(astuple(self))

    @classmethod
    def from_log(cls, logarithms: FloatArray) -> Kernel:
        """Return the kernel whose parameters have these (8,) logarithms."""
        return cls(*map(float, np.exp(logarithms)))

    def draw(self, n: int, like: KernelInputs, rng: np.random.Generator) -> InputFunction:
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
        guessed = like.prior is not None
        effect = np.sqrt(self.trend) + rng.normal(scale=np.sqrt(self.common), size=n)
        effects = (0.0 if guessed else effect) + rng.normal(scale=np.sqrt(self.returns), size=(groups, n))
        total_slopes = rng.normal(scale=np.sqrt(self.totals / totals), size=(totals, n))
        curvature = rng.normal(scale=np.sqrt(self.quadratic) / groups, size=(n, groups, groups))
        frequencies = rng.normal(scale=1 / (self.length * np.sqrt(groups)), size=(groups, _FREQUENCIES))
        amplitude = rng.normal(scale=np.sqrt(self.residual / _FREQUENCIES), size=(2 * _FREQUENCIES, n))

        def functions(inputs: KernelInputs) -> FloatArray:
            x = inputs.groups
            bends = np.empty((len(x), n))
            for number, bend in enumerate(curvature):  # one by one: all at once are many times the inputs
                bends[:, number] = ((x @ bend) * x).sum(axis=1)
            phases = x @ frequencies
            both = np.empty((len(x), 2 * _FREQUENCIES))
            np.cos(phases, out=both[:, :_FREQUENCIES])
            np.sin(phases, out=both[:, _FREQUENCIES:])
            waves = both @ amplitude
            value: FloatArray = level + inputs.returns @ effects + inputs.totals @ total_slopes + bends + waves
            return value + np.outer(inputs.trend, effect) if guessed else value

        return functions

    def _linear(self, inputs: KernelInputs) -> FloatArray:
        """(N, F) features whose products are the constant, power-law and total terms."""
        return np.hstack(
            [
                np.full((len(inputs.groups), 1), np.sqrt(_CONSTANT)),
                np.sqrt(self.common) * inputs.trend[:, None],
                np.sqrt(self.returns) * inputs.returns,
                np.sqrt(self.totals / inputs.totals.shape[1]) * inputs.totals,
            ]
        )

    def _terms(self, gram: Gram) -> tuple[FloatArray, ...]:
        return (
            self.common * gram.common,
            self.returns * gram.returns,
            self.totals * gram.totals,
            self.quadratic * gram.groups**2,
            self.residual * np.exp(-gram.squared_distance / (2 * self.length**2)),
        )


def _sum(terms: tuple[FloatArray, ...]) -> FloatArray:
    first, *others = terms
    return sum(others, _CONSTANT + first)
