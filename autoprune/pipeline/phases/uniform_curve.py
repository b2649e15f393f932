"""Uniform pruning around the budget: at which cost is it as good as the winner?"""

from __future__ import annotations

from autoprune.pipeline.phases.context import RunContext
from autoprune.pipeline.phases.full_scores import score_fully
from autoprune.verdict.baselines import curve_budgets
from autoprune.verdict.record import CurvePoint

_SEED = 2_000_003


def uniform_curve(run: RunContext) -> tuple[CurvePoint, ...]:
    """Costs and scores of uniform pruning, on all validation data."""
    scored = score_fully(run, curve_budgets(run.domain), phase="uniform curve", seed=_SEED)
    return tuple(CurvePoint(run.domain.budget.costs_of(widths), score) for widths, score in scored.items())
