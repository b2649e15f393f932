"""Budgets: limits on metrics, absolute or in percent of the full model, upper ends or ranges; several at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import numpy as np

from autoprune.cost.budget.limits import Bound, Limit, read_limit
from autoprune.cost.polynomial import CostFunction, WidthMatrix
from autoprune.cost.pricing import MetricSettings, price
from autoprune.cost.steps import Steps, Tightest, steps_of
from autoprune.errors import BudgetError
from autoprune.space.groups import BoolArray, FloatArray, IntArray, SearchSpace, Widths

__all__ = ["BAND", "Bound", "Budget", "Limit"]

BAND = 0.97
"""A repaired proposal uses between BAND and 1.00 of the tightest limit."""


@final
class Budget:
    """The limits a search keeps, resolved against a space.

    Args:
        space: gives full and smallest costs.
        constraints: metric -> limit: `"50%"` of the full model, a number in the metric's unit, `"40M"` (k, M, G), or a
            range of those, `{"min": "45%", "max": "50%"}`.
        metrics: metric -> its settings, for example `{"peak_memory_mb": {"batch": 8}}`.
        priced: what `price` gave for this space and these settings, for another budget of them.

    Attributes:
        metrics: all metrics that can be computed with these settings.
        limits: in the order given.
        settings: those of the metrics, as given.

    Raises:
        BudgetError: no limit, a malformed limit, one that contradicts itself or is out of reach, or one on a metric
            that cannot be computed.
        RegistryError: an unknown metric.
        ConfigError: settings that a metric does not take.
    """

    def __init__(
        self,
        space: SearchSpace,
        constraints: Mapping[str, Bound],
        metrics: MetricSettings | None = None,
        *,
        priced: Mapping[str, CostFunction] | None = None,
    ) -> None:
        if not constraints:
            raise BudgetError('no budget given; name at least one limit, for example {"flops": "50%"}')
        self.settings: MetricSettings = metrics or {}
        known = priced is not None and constraints.keys() <= priced.keys()
        self.metrics = dict(priced) if priced and known else price(space, metrics, wanted=constraints)
        self.limits = tuple(self._limit(space, name, value) for name, value in constraints.items())

    def __str__(self) -> str:
        return " and ".join(map(str, self.limits))

    @property
    def binds(self) -> bool:
        """False where the full network keeps every limit, so that there is nothing to search."""
        return any(limit.upper < limit.full for limit in self.limits)

    @property
    def constraints(self) -> dict[str, Bound]:
        """The limits as this class takes them, in the metrics' units."""
        return {x.metric: {"max": x.upper, **({"min": x.lower} if x.lower else {})} for x in self.limits}

    @property
    def has_ranges(self) -> bool:
        """True where a limit has a lower end."""
        return any(limit.lower for limit in self.limits)

    def costs(self, widths: WidthMatrix) -> dict[str, FloatArray]:
        """Return metric -> (N,) costs of the (N, G) widths, for every metric."""
        return {name: cost(widths) for name, cost in self.metrics.items()}

    def costs_of(self, widths: Widths) -> dict[str, float]:
        """Return metric -> cost of one width vector."""
        return {name: float(cost[0]) for name, cost in self.costs(np.array([widths])).items()}

    def usage(self, widths: WidthMatrix) -> FloatArray:
        """Return the (N,) share of the tightest limit that each row uses; at most 1 is below all upper ends.

        A limit above the full model's cost does not bind; it is treated as the full model's cost.
        """
        shares = [self.metrics[limit.metric](widths) / min(limit.upper, limit.full) for limit in self.limits]
        tightest: FloatArray = np.max(shares, axis=0)
        return tightest

    def steps(self, widths: IntArray) -> Steps:
        """Return the `usage` of (N, G) widths of which one entry changes at a time."""
        return Tightest(
            [(steps_of(self.metrics[x.metric], widths), min(x.upper, x.full)) for x in self.limits],
        )

    def shortfall(self, widths: WidthMatrix) -> FloatArray:
        """Return the (N,) largest gap below a lower end, as a share of the full cost; at most 0 is above all."""
        ranges = [limit for limit in self.limits if limit.lower]
        lacks = [(limit.lower - self.metrics[limit.metric](widths)) / limit.full for limit in ranges]
        most: FloatArray = np.max([*lacks, np.full(len(widths), -1.0)], axis=0)
        return most

    def keeps(self, widths: WidthMatrix) -> BoolArray:
        """Return (N,) True where the row is inside every limit."""
        inside: BoolArray = self.usage(widths) <= 1.0
        return inside & (self.shortfall(widths) <= 0.0) if self.has_ranges else inside

    def _limit(self, space: SearchSpace, metric: str, given: Bound) -> Limit:
        full, smallest = (float(self.metrics[metric](np.array([widths]))[0]) for widths in (space.full, space.smallest))
        if not full:
            raise BudgetError(f"budget {metric}: the full network costs 0, so there is nothing to limit; leave it out")
        return read_limit(metric, given, full=full, smallest=smallest)
