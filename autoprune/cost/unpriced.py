"""A metric that cannot be computed as things are, though it exists."""

from __future__ import annotations

from typing import final

from autoprune.errors import BudgetError


@final
class UnpricedError(BudgetError):
    """A metric lacks a setting that it needs, or the space lacks what it is computed from."""
