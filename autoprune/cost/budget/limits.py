"""What a budget says about one metric: an upper limit, or a range."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias, final

from autoprune.config.limits import RangeError, ends_of
from autoprune.errors import BudgetError, shortened

Bound: TypeAlias = str | float | Mapping[str, str | float]
"""`"50%"` of the full model, a number in the metric's unit, `"40M"` (k, M, G), or a range `{"min": …, "max": …}`."""

_SUFFIXES = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}
_NUMBER = r"([0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?|[0-9_.]+(?:e[+-]?[0-9]+)?)"  # commas group thousands only


@final
@dataclass(frozen=True, slots=True)
class Limit:
    """A limit on one metric, in the metric's own unit.

    Attributes:
        metric: name in `METRICS`.
        upper: the largest allowed cost.
        full: the unpruned model's cost.
        smallest: the cost of the smallest network of the space.
        lower: the smallest allowed cost; 0 where only the upper end is limited.
    """

    metric: str
    upper: float
    full: float
    smallest: float
    lower: float = 0.0

    @property
    def percent(self) -> float:
        """The upper limit in percent of the full model."""
        return 100.0 * self.upper / self.full

    @property
    def reachable(self) -> str:
        """What networks of the space cost, for messages."""
        share = 100 * self.smallest / self.full
        return (
            f"the smallest network of this space costs {number(self.smallest)} ({share:.3g} % of {number(self.full)}), "
            f"the largest {number(self.full)}"
        )

    def __str__(self) -> str:
        least = f"{number(self.lower)} ≤ " if self.lower else ""
        return f"{least}{self.metric} ≤ {number(self.upper)} ({self.percent:.3g} % of {number(self.full)})"


def read_limit(metric: str, given: Bound, *, full: float, smallest: float) -> Limit:
    """Resolve what a budget says about a metric.

    Args:
        metric: its name.
        given: the limit.
        full: cost of the unpruned model.
        smallest: cost of the smallest network.

    Raises:
        BudgetError: malformed, contradicting itself, or out of reach; says what can be reached.
    """
    within = Limit(metric, full, full, smallest)
    try:
        ends = ends_of(given)
    except RangeError as error:
        raise BudgetError(
            f'budget {metric}: a range is {{"min": …, "max": …}}, got {given!r}: '
            f"{str(error).rstrip('.')}; {within.reachable}"
        ) from None
    upper = _parse(within, ends["max"])
    lower = _parse(within, ends["min"], zero=True) if "min" in ends else 0.0
    limit = Limit(metric, upper, full, smallest, lower)
    if lower > upper:
        raise BudgetError(
            f"budget {metric}: the range {given!r} contradicts itself, min is above max; {limit.reachable}"
        )
    if upper < smallest:
        raise BudgetError(
            f"budget {limit.metric} ≤ {number(upper)} cannot be reached: {limit.reachable}; raise the limit, "
            f"or lower min_ratio or min_channels in the space options"
        )
    if lower > full:
        raise BudgetError(f"budget {metric} ≥ {number(lower)} cannot be reached: {limit.reachable}; lower the min")
    return limit


def check_limit(metric: str, given: Bound) -> None:
    """Check what can be known of a limit before there is a model: that it can be read, and is above 0.

    Raises:
        BudgetError: it cannot, or its ends contradict each other.
    """
    ends = ends_of(given)
    read = {end: _value(ends[end], 1.0, zero=end == "min") for end in ends}
    for end, value in ends.items():
        if read[end] is None:
            raise BudgetError(f"budget {metric}: {_told(value)}")
    shares = [str(value).strip().endswith("%") for value in ends.values()]
    least, most = read.get("min") or 0.0, read["max"] or 0.0
    if len(set(shares)) == 1 and least > most:
        raise BudgetError(f"budget {metric}: the range {given!r} contradicts itself, min is above max; swap them")


def number(value: float) -> str:
    """A cost as a person reads it: whole from 1,000 on, four digits below."""
    return f"{value:,.0f}" if abs(value) >= 1000 or value == round(value) else f"{value:.4g}"


def _told(given: object) -> str:
    return (
        f"{shortened(repr(given), 80)} is not a limit; allowed: a percentage of the full model such as "
        f'"50%", or an absolute number such as 40000000 or "40M"'
    )


def _value(given: object, full: float, *, zero: bool) -> float | None:
    """In the unit of the metric, which costs `full` without pruning; None where it is not a limit."""
    match = None if isinstance(given, bool) else re.fullmatch(_NUMBER + r"\s*(%|[kKmMgG]?)", str(given).strip())
    try:
        value = float(match[1].replace(",", "").replace("_", "")) if match else math.nan
    except ValueError:
        value = math.nan
    if match is None or not math.isfinite(value) or value < 0 or (value == 0 and not zero):
        return None
    return full * value / 100 if match[2] == "%" else value * _SUFFIXES[match[2].lower()]


def _parse(within: Limit, given: object, *, zero: bool = False) -> float:
    value = _value(given, within.full, zero=zero)
    if value is None:
        raise BudgetError(f"budget {within.metric}: {_told(given)}; {within.reachable}")
    if 0 < value < 1 <= within.smallest and str(given).strip()[-1] not in "%kKmMgG":
        raise BudgetError(
            f"budget {within.metric}: {given!r} is less than 1; for a share of the full model write "
            f'"{100 * value:g}%"; {within.reachable}'
        )
    return value
