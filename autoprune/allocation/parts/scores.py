"""Scores of channels: checked, and made comparable between groups."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeAlias

import numpy as np

from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import ConfigError, suggest
from autoprune.space.groups import FloatArray

Normalisation: TypeAlias = Literal["l2", "mean", "max", "none"]

_NORMS: Mapping[str, Callable[[FloatArray], float]] = {
    "l2": lambda s: float(np.linalg.norm(s)),
    "mean": lambda s: float(s.mean()),
    "max": lambda s: float(s.max()),
    "none": lambda s: 1.0,
}


def checked_scores(what: str, domain: BudgetedSpace, scores: Sequence[FloatArray]) -> list[FloatArray]:
    """Return the scores of all groups as arrays of floats.

    Args:
        what: the rule, for messages.
        domain: the space under its budget.
        scores: per group, (width,) importances of its channels.

    Raises:
        ConfigError: they do not fit the groups, or are negative or not finite.
    """
    groups = domain.space.groups
    if len(scores) != len(groups):
        raise ConfigError(f"{what}: scores of {len(scores)} groups given for a space of {len(groups)}")
    checked = []
    for group, given in zip(groups, scores, strict=True):
        s = np.asarray(given, dtype=np.float64)
        if s.shape != (group.width,) or not np.isfinite(s).all() or (s < 0).any():
            raise ConfigError(
                f"{what}: group {group.name!r} needs {group.width} finite scores of at least 0, got "
                f"shape {s.shape}" + (f" with values from {s.min()} to {s.max()}" if s.size else "")
            )
        checked.append(s)
    return checked


def normalised(what: str, scores: Sequence[FloatArray], how: Normalisation) -> list[FloatArray]:
    """Return the scores of each group divided by their norm; zeros stay zeros.

    Raises:
        ConfigError: there is no such normalisation.
    """
    one_of(what, "normalise", how, _NORMS)
    return [s / (_NORMS[how](s) or 1.0) for s in scores]


def one_of(what: str, setting: str, given: object, allowed: Mapping[str, object] | Sequence[str]) -> None:
    """Check a setting that is one of several names.

    Raises:
        ConfigError: it is none of them; the closest one is suggested.
    """
    if not isinstance(given, str) or given not in allowed:
        raise ConfigError(
            f"{what}: {setting} cannot be {given!r}; choose one of {', '.join(allowed)}.{suggest(str(given), allowed)}"
        )
