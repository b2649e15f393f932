"""Limits on metrics, and widths repaired onto them."""

from autoprune.deprecation import moved

__getattr__ = moved(
    __name__,
    {
        "BAND": "autoprune.cost.budget.budget",
        "Budget": "autoprune.cost.budget.budget",
    },
    since="2026-11-29",
)
