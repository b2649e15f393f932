"""A metric that cannot be computed as things are, though it exists."""

from __future__ import annotations

from typing import final

from autoprune.errors import BudgetError


@final
class UnpricedError(BudgetError):
    """A metric lacks a setting that it needs, or the space lacks what it is computed from."""


@final
class MissingKernelsError(BudgetError):
    """A device profile lacks kernels of a space.

    Args:
        what: which, and of which profile, without what to do next.
        command: what adds them.
    """

    def __init__(self, what: str, command: str = "autoprune latency profile MODEL --add-to FILE") -> None:
        super().__init__(f"{what}; add them with: {command}")
        self.what = what
