"""Sums of products of affine sizes, for many width vectors at once.

A layer's dimension sizes are affine in the widths, so a product of two of them is a quadratic form; the cost of N
candidates is then two matrix products. float64 is exact here: every partial sum is of whole eighths, and below 2**50.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias, final

import numpy as np
import numpy.typing as npt

from autoprune.space.groups import FloatArray
from autoprune.space.sizes import AffineSize

_ROWS = 1024  # that are worked on at once: they stay in the cache

_SPARSE_FROM, _SPARSE = 128, 32
"""Groups from which on pairs are multiplied one by one, where one in so many of them has a coefficient."""

WidthMatrix: TypeAlias = npt.NDArray[np.int64] | npt.NDArray[np.float64]
CostFunction: TypeAlias = Callable[[WidthMatrix], FloatArray]
"""(N, G) widths -> (N,) costs; real-valued widths are allowed, so that budgets can be bisected."""


@final
class Polynomial:
    """`sum(coefficient * product(sizes))` as a function of (N, G) widths.

    Args:
        terms: pairs of a coefficient, whole or of whole eighths, and the affine sizes it multiplies.
        n_groups: G, the number of width groups.
    """

    def __init__(self, terms: Iterable[tuple[float, Sequence[AffineSize]]], n_groups: int) -> None:
        self._constant = 0.0
        self._linear = np.zeros(n_groups)
        self._quadratic = np.zeros((n_groups, n_groups))
        products: list[tuple[float, list[AffineSize]]] = []  # of three sizes and more: attention, blocks
        for coefficient, sizes in terms:
            varying = [size for size in sizes if size.terms]
            fixed = float(coefficient) * math.prod(size.constant for size in sizes if not size.terms)
            if len(varying) > 2:
                products.append((fixed, varying))
            else:
                self._add(fixed, [_dense(size, n_groups) for size in varying])
        self._higher = _Products(products, n_groups) if products else None
        first, second = self._quadratic.nonzero()
        sparse = n_groups >= _SPARSE_FROM and len(first) * _SPARSE <= n_groups**2
        self._pairs = (first, second, self._quadratic[first, second]) if sparse else None

    def __call__(self, widths: WidthMatrix) -> FloatArray:
        """Return the (N,) values at the (N, G) widths."""
        rows = np.atleast_2d(np.asarray(widths))
        values: FloatArray = np.empty(len(rows))
        room = np.empty((2, min(len(rows), _ROWS), rows.shape[1]))
        for start in range(0, len(rows), _ROWS):
            part = rows[start : start + _ROWS]
            w, products = room[:, : len(part)]
            w[:] = part
            self._sum(w, products, out=values[start : start + _ROWS])
        return values

    def steps(self, widths: npt.NDArray[np.int64]) -> PolynomialSteps:
        """Return the values at (N, G) whole widths, ready to follow changes of one entry (`autoprune.cost.steps`)."""
        return PolynomialSteps(self(widths), widths, self._linear, self._quadratic, self._higher)

    def _sum(self, w: FloatArray, products: FloatArray, *, out: FloatArray) -> None:
        if self._pairs is not None:
            first, second, coefficients = self._pairs
            np.matmul(w[:, first] * w[:, second], coefficients, out=out)
            out += w @ self._linear
        else:
            np.matmul(w, self._quadratic, out=products)
            products += self._linear
            np.einsum("ij,ij->i", products, w, out=out)
        out += self._constant
        if self._higher is not None:
            out += self._higher(w)

    def _add(self, coefficient: float, varying: list[tuple[float, FloatArray]]) -> None:
        one = (1.0, np.zeros_like(self._linear))
        (a0, a), (b0, b) = [*varying, one, one][:2]
        self._constant += coefficient * a0 * b0
        self._linear += coefficient * (a0 * b + b0 * a)
        self._quadratic += coefficient * np.outer(a, b)


@final
class PolynomialSteps:
    """A polynomial at N width vectors that change one entry at a time: a step costs (N, G), not (N, G, G).

    All values are whole numbers, so they are exactly those that the polynomial gives.

    Args:
        values: (N,) of the polynomial at the widths.
        widths: (N, G), to begin with; only read.
        linear: (G,) coefficients of the polynomial.
        quadratic: (G, G) coefficients.
        higher: the rest of it.
    """

    def __init__(
        self,
        values: FloatArray,
        widths: npt.NDArray[np.int64],
        linear: FloatArray,
        quadratic: FloatArray,
        higher: _Products | None,
    ) -> None:
        self._w = widths.astype(np.float64)
        self._rows = np.arange(len(widths))
        self._mixed = quadratic + quadratic.T
        self._square = quadratic.diagonal()
        self._higher = higher
        self._slopes = self._w @ self._mixed + linear
        self._values = values
        if higher is not None:
            self._sizes = higher.sizes(self._w)
            self._products = higher.total(self._sizes)

    def changed(self, columns: npt.NDArray[np.int64], values: npt.NDArray[np.int64]) -> FloatArray:
        """Return the (N,) values of the polynomial with (N,) widths in these (N,) columns, one of each row."""
        by = values - self._w[self._rows, columns]
        found = self._values + by * (self._slopes[self._rows, columns] + by * self._square[columns])
        if self._higher is not None:
            sizes = self._higher.changed(self._sizes, columns, by)
            products = self._higher.total(sizes)
            found += products - self._products
            self._larger = sizes, products
        self._trial = columns, by, found
        return found

    def keep(self, rows: npt.NDArray[np.bool_]) -> None:
        """Make the last change so in some of the rows."""
        columns, by, found = self._trial
        here, columns, by = self._rows[rows], columns[rows], by[rows]
        self._w[here, columns] += by
        self._slopes[here] += by[:, None] * self._mixed[columns]
        self._values = np.where(rows, found, self._values)
        if self._higher is not None:
            sizes, products = self._larger
            self._sizes[:, rows] = sizes[:, rows]
            self._products = np.where(rows, products, self._products)


@final
class _Products:
    """Products of three sizes and more; each size is computed once, for all products that it is a factor of."""

    def __init__(self, products: Iterable[tuple[float, Sequence[AffineSize]]], n_groups: int) -> None:
        rows: dict[AffineSize, int] = {}
        by_length: dict[int, list[tuple[float, list[int]]]] = defaultdict(list)
        for coefficient, sizes in products:
            by_length[len(sizes)].append((coefficient, [rows.setdefault(size, len(rows)) for size in sizes]))
        dense = [_dense(size, n_groups) for size in rows]
        self._constants = np.array([[constant] for constant, _ in dense])
        self._linear = np.array([linear for _, linear in dense])
        self._terms = [
            (np.array([coefficient for coefficient, _ in terms]), np.array([factors for _, factors in terms]).T)
            for terms in by_length.values()
        ]

    def __call__(self, w: FloatArray) -> FloatArray:
        """Return the (N,) sums at the (N, G) widths."""
        return self.total(self.sizes(w))

    def sizes(self, w: FloatArray) -> FloatArray:
        """Return (S, N) every size at the (N, G) widths."""
        sizes: FloatArray = self._linear @ w.T + self._constants
        return sizes

    def changed(self, sizes: FloatArray, columns: npt.NDArray[np.int64], by: FloatArray) -> FloatArray:
        """Return (S, N) the sizes where the widths of (N,) columns, one of each row, differ by (N,) these."""
        changed: FloatArray = sizes + self._linear[:, columns] * by
        return changed

    def total(self, sizes: FloatArray) -> FloatArray:
        """Return the (N,) sums of products of (S, N) sizes."""
        total: FloatArray = np.zeros(sizes.shape[1])
        for coefficients, factors in self._terms:
            product = sizes[factors[0]]
            for rows in factors[1:]:
                product *= sizes[rows]
            total += coefficients @ product
        return total


def log_widths(widths: npt.ArrayLike) -> FloatArray:
    """Logarithms of widths; a block that is off lies as far from one that is on as half a width from the full one."""
    return np.log(np.maximum(np.asarray(widths, dtype=np.float64), 0.5))


def _dense(size: AffineSize, n_groups: int) -> tuple[float, FloatArray]:
    linear = np.zeros(n_groups)
    for group, multiplicity in size.terms:
        linear[group] += multiplicity
    return float(size.constant), linear
