"""Numbers, limits and tables as a report writes them."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, final

from autoprune.texts import ScoreScale, printable, score_text, significant

_MARKUP = re.compile(r"[\\`*\[\]|$~]|^#|(?<!\w)_|_(?!\w)")
_LINKED = re.compile(r"\b(?:https?|ftp)://|\bwww\.|\bmailto:|\bxmpp:", re.IGNORECASE)
"""What readers of Markdown turn into links by themselves."""

FLOPS = "One multiply-add counts as one FLOP."

AS_TRIAL = "as a trial of the search"
"""The heading of scores that the search chose by."""

BEFORE_TRAINING = "before training"
"""The heading of scores on all validation data after the search, of the compared networks."""


@final
@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under a header; the first column names the row."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def markdown_text(text: str) -> str:
    """Text of a user's for a line or a cell of Markdown: no markup, no links, no rows or columns, nothing invisible."""
    shown = html.escape(_MARKUP.sub(r"\\\g<0>", printable(" ".join(text.split()))), quote=False)
    return _LINKED.sub(lambda match: match[0].replace(":", "&#58;").replace(".", "&#46;"), shown)


def quantity(value: float) -> str:
    """A cost for the eye: 62.9 M, 855.8 k, 512, 3.52."""
    for factor, suffix, least in ((1e9, "G", 0.99995), (1e6, "M", 0.99995), (1e3, "k", 0.9995)):
        if abs(value) >= least * factor:  # what rounds to 1,000 of the smaller unit is 1 of this one
            return f"{value / factor:.1f} {suffix}"
    return f"{value:.0f}" if value == round(value) else f"{value:.3g}"


def exact(value: float) -> str:
    """A cost with every digit before its point: hundredths from 1,000 on, four significant digits below."""
    if value == round(value):
        return f"{value:,.0f}"
    return f"{value:,.2f}".rstrip("0").rstrip(".") if abs(value) >= 1000 else f"{value:.4g}"


def percent(value: float, full: float) -> str:
    """Share of the full network, or a dash where that costs nothing."""
    return f"{100 * value / full:.1f} %" if full else "–"


def chance(probability: float) -> str:
    """A probability of a model, which is never sure."""
    if not 0.01 <= probability <= 0.99:
        return "more than 99 %" if probability > 0.5 else "less than 1 %"
    return f"{100 * probability:.0f} %"


def lower_end(limit: Mapping[str, Any]) -> float:
    """Of a limit of a record; 0 where only the upper end is limited (runs of older versions have no other)."""
    return float(limit.get("lower") or 0.0)


def keeps(budget: Iterable[Mapping[str, Any]], costs: Mapping[str, float]) -> bool:
    """Whether costs are inside every limit of a record; a metric that they lack limits nothing."""
    return all(lower_end(x) <= costs[x["metric"]] <= x["upper"] for x in budget if x["metric"] in costs)


def limit_text(limit: Mapping[str, Any]) -> str:
    """A limit of a record in words, a range with both its ends."""
    lower, share = lower_end(limit), percent(limit["upper"], limit["full"])
    least = f"{quantity(lower)} ≤ " if lower else ""
    share = f"{percent(lower, limit['full'])} to {share}" if lower else share
    return f"{least}{limit['metric']} ≤ {quantity(limit['upper'])} ({share} of {quantity(limit['full'])})"


def mean_and_deviation(scores: Sequence[float], scale: ScoreScale) -> str:
    """Scores over seeds; a dash where there are none."""
    if len(scores) < 2:
        return score_text(scores[0], scale) if scores else "–"
    return plus_minus(fmean(scores), stdev(scores), scale)


def plus_minus(mean: float, deviation: float, scale: ScoreScale) -> str:
    """A score and its deviation."""
    value = scale.turned(mean)
    if scale.unit == "%":
        return f"{value:.2f} ± {deviation:.2f} %"
    return f"{significant(value, 4)} ± {significant(deviation, 2)}{scale.unit and f' {scale.unit}'}"
