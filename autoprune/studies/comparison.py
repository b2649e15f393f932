"""What a comparison found, as values: rows, the best of each budget, and whether its lead is beyond noise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self, final

import numpy as np
from scipy.special import ndtri

from autoprune.errors import ConfigError
from autoprune.tasks.score import unpacked
from autoprune.texts import ScoreScale, difference_text, score_text

CONFIDENCE = 0.95


@final
@dataclass(frozen=True, slots=True)
class Row:
    """One combination under one budget.

    Attributes:
        budget: percent of the full network.
        allocation: label of the rule that gave the widths.
        criterion: label of what ranked the channels.
        inherit: label of what was done to the weights.
        widths: by group.
        used: percent of the full network that they cost.
        score: None where it failed.
        standard_error: of the score; None if unknown.
        seconds: of the evaluation, where the first of its kind pays for the statistics.
        error: what went wrong.
        examples: values of single examples, packed; None where the task keeps none.
    """

    budget: float
    allocation: str
    criterion: str
    inherit: str
    widths: Mapping[str, int]
    used: float
    score: float | None
    standard_error: float | None = None
    seconds: float = 0.0
    error: str | None = None
    examples: str | None = field(default=None, repr=False)

    @property
    def label(self) -> str:
        """The combination."""
        return f"{self.allocation}, {self.criterion}, {self.inherit}"


@final
@dataclass(frozen=True)
class CompareResult:
    """All rows of a comparison, the best of each budget first.

    Attributes:
        metric: that the budgets limit.
        scale: what scores count; inside, higher is better.
        full: score of the base network.
        rows: ordered by budget, then by score; failed ones last.
        usual: label of (criterion, inheritance) of the job; with it, uniform widths are the reference.
        notes: what was left out, and why.
        directory: where the pages lie.
    """

    metric: str
    scale: ScoreScale
    full: float
    rows: tuple[Row, ...]
    usual: tuple[str, str]
    notes: tuple[str, ...]
    directory: Path

    def best(self, budget: float) -> Row:
        """The row of the highest score under a budget.

        Raises:
            ConfigError: no such budget, or all of its rows failed.
        """
        scored = [row for row in self.rows if row.budget == budget and row.score is not None]
        if not scored:
            given = ", ".join(f"{b:g}" for b in self.budgets)
            raise ConfigError(f"nothing was scored under the budget {budget!r}; there are {given}")
        return scored[0]

    @cached_property
    def budgets(self) -> tuple[float, ...]:
        """In percent, the largest first."""
        return tuple(sorted({row.budget for row in self.rows}, reverse=True))

    def reference(self, budget: float) -> Row | None:
        """Uniform widths as the job would score them; None where they were not asked for, or failed."""
        found = (
            row
            for row in self.rows
            if row.budget == budget
            and row.allocation == "uniform_all"
            and (row.criterion, row.inherit) == self.usual
            and row.score is not None
        )
        return next(found, None)

    def sentence(self, budget: float) -> str:
        """What is best under a budget, and by how much; a lead counts where chance among all rows would not give it."""
        best, reference = self.best(budget), self.reference(budget)
        assert best.score is not None  # `best` has one
        told = f"At {budget:g} % of {self.metric}: {best.label} with {score_text(best.score, self.scale)}"
        if reference is None or reference is best:
            return (
                f"{told}{'' if reference is None else '; nothing is better than what the job does at uniform widths'}."
            )
        assert reference.score is not None  # so has the reference
        lead = f"{difference_text(best.score - reference.score, self.scale)}{self.scale.of_difference}"
        error = _error_of_difference(best, reference)
        if error is None:
            return f"{told}, {lead} against {reference.label}; how much of it is noise is not known."
        rivals = sum(row.budget == budget and row.score is not None for row in self.rows) - 1
        needed = ndtri(1 - (1 - CONFIDENCE) / 2 / max(rivals, 1)) * error
        beyond = "beyond noise" if best.score - reference.score > needed else "within noise"
        return f"{told}, {lead} against {reference.label}, {beyond} (best of {rivals + 1}: ±{needed:.2g})."

    def to_json(self) -> dict[str, Any]:
        """Everything but the values of single examples; scores as their measure counts them."""
        rows = [{key: value for key, value in asdict(row).items() if key != "examples"} for row in self.rows]
        for row in rows:
            row["score"] = None if row["score"] is None else self.scale.turned(row["score"])
        about = {
            "metric": self.metric,
            "scale": asdict(self.scale),
            "full": self.scale.turned(self.full),
            "usual": list(self.usual),
        }
        best = [self.sentence(budget) for budget in self.budgets if self._scored(budget)]
        return {
            **about,
            "full": self.scale.turned(self.full),
            "notes": list(self.notes),
            "sentences": best,
            "rows": rows,
        }

    @classmethod
    def of(cls, rows: Sequence[Row], **about: Any) -> Self:
        """Rows in any order."""

        def order(row: Row) -> tuple[float, bool, float]:
            return -row.budget, row.score is None, -(row.score or 0.0)

        return cls(rows=tuple(sorted(rows, key=order)), **about)

    def _scored(self, budget: float) -> bool:
        return any(row.budget == budget and row.score is not None for row in self.rows)

    @property
    def sentences(self) -> tuple[str, ...]:
        """One for each budget under which anything was scored."""
        return tuple(self.sentence(budget) for budget in self.budgets if self._scored(budget))


def _error_of_difference(one: Row, other: Row) -> float | None:
    """Standard error of the difference of two scores: on the same examples where they are kept, else of two scores."""
    if one.examples is not None and other.examples is not None:
        values = [np.asarray(unpacked(text), dtype=np.float64) for text in (one.examples, other.examples)]
        if len(values[0]) == len(values[1]) and one.score is not None:
            mean = float(values[0].mean())
            scale = one.score / mean if mean else 1.0  # of truth values to percent, for example
            spread = float((values[0] - values[1]).std(ddof=1)) if len(values[0]) > 1 else math.inf
            return abs(scale) * spread / math.sqrt(len(values[0]))
    if one.standard_error is None or other.standard_error is None:
        return None
    return math.hypot(one.standard_error, other.standard_error)
