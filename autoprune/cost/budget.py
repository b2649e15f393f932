"""Budgets: upper limits on metrics, absolute or in percent of the full model; several at once."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np

from autoprune.cost import METRICS
from autoprune.cost.polynomial import CostFunction, WidthMatrix
from autoprune.errors import BudgetError
from autoprune.space.groups import FloatArray, SearchSpace, Widths

BAND = 0.97
"""A repaired proposal uses between BAND and 1.00 of the tightest limit."""

_SUFFIXES = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}


@final
@dataclass(frozen=True, slots=True)
class Limit:
    """An upper limit on one metric, in the metric's own unit.

    Attributes:
        metric: name in `METRICS`.
        upper: the largest allowed cost.
        full: the unpruned model's cost.
        smallest: the smallest cost that the space can reach.
    """

    metric: str
    upper: float
    full: float
    smallest: float

    @property
    def percent(self) -> float:
        """The limit in percent of the full model."""
        return 100.0 * self.upper / self.full

    def __str__(self) -> str:
        return f"{self.metric} ≤ {self.upper:,.0f} ({self.percent:.3g} % of {self.full:,.0f})"


@final
class Budget:
    """The limits a search keeps, resolved against a space.

    Args:
        space: gives full and smallest costs.
        constraints: metric -> limit: `"50%"` of the full model, a number in the metric's unit, or `"40M"` (k, M, G).

    Raises:
        BudgetError: no limit, a malformed limit, or one below the smallest reachable cost.
        RegistryError: an unknown metric.
    """

    def __init__(self, space: SearchSpace, constraints: Mapping[str, str | float]) -> None:
        if not constraints:
            raise BudgetError('no budget given; name at least one limit, for example {"flops": "50%"}')
        self.metrics: dict[str, CostFunction] = {name: METRICS.get(name)(space) for name in METRICS.names()}
        unknown = sorted(constraints.keys() - self.metrics.keys())
        if unknown:
            METRICS.get(unknown[0])  # raises with a suggestion
        self.limits = tuple(self._limit(space, name, value) for name, value in constraints.items())

    def __str__(self) -> str:
        return " and ".join(map(str, self.limits))

    @property
    def binds(self) -> bool:
        """False where the full network keeps every limit, so that there is nothing to search."""
        return any(limit.upper < limit.full for limit in self.limits)

    def costs(self, widths: WidthMatrix) -> dict[str, FloatArray]:
        """Return metric -> (N,) costs of the (N, G) widths, for every metric."""
        return {name: cost(widths) for name, cost in self.metrics.items()}

    def costs_of(self, widths: Widths) -> dict[str, float]:
        """Return metric -> cost of one width vector."""
        return {name: float(cost[0]) for name, cost in self.costs(np.array([widths])).items()}

    def usage(self, widths: WidthMatrix) -> FloatArray:
        """Return the (N,) share of the tightest limit that each row uses; at most 1 is inside the budget.

        A limit above the full model's cost does not bind; it is treated as the full model's cost.
        """
        shares = [self.metrics[limit.metric](widths) / min(limit.upper, limit.full) for limit in self.limits]
        tightest: FloatArray = np.max(shares, axis=0)
        return tightest

    def _limit(self, space: SearchSpace, metric: str, given: str | float) -> Limit:
        cost = self.metrics[metric]
        full, smallest = (float(cost(np.array([widths]))[0]) for widths in (space.full, space.smallest))
        upper = _parse(metric, given, full)
        if upper < smallest:
            raise BudgetError(
                f"budget {metric} ≤ {upper:,.0f} cannot be reached: the smallest network of this space costs "
                f"{smallest:,.0f} ({100 * smallest / full:.3g} % of {full:,.0f}); raise the limit, "
                f"or lower min_ratio or min_channels in the space options"
            )
        return Limit(metric, upper, full, smallest)


def _parse(metric: str, given: str | float, full: float) -> float:
    number_form = r"([0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?|[0-9_.]+(?:e[+-]?[0-9]+)?)"  # commas group thousands only
    match = None if isinstance(given, bool) else re.fullmatch(number_form + r"\s*(%|[kKmMgG]?)", str(given).strip())
    try:
        number = float(match[1].replace(",", "").replace("_", "")) if match else math.nan
    except ValueError:
        number = math.nan
    allowed = 'a percentage of the full model such as "50%", or an absolute number such as 40000000 or "40M"'
    if match is None or not math.isfinite(number) or number <= 0:
        raise BudgetError(f"budget {metric}: {given!r} is not a limit; allowed: {allowed}")
    if match[2] == "%":
        return full * number / 100
    if number < 1 and not match[2]:
        share = f"{100 * number:g}%"
        raise BudgetError(f'budget {metric}: {given!r} is less than 1; for a share of the full model write "{share}"')
    return number * _SUFFIXES[match[2].lower()]
