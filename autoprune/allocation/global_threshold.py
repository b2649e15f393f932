"""One importance threshold for the whole network: each group keeps as many channels as score above it.

Network Slimming (Liu et al. 2017, arXiv 1708.06519, section 3.2) thresholds all scaling factors at once; Molchanov et
al. 2017 (arXiv 1611.06440, section 2.2) divide a layer's scores by their L2 norm first, so that layers compare.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeAlias

import numpy as np

from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import ConfigError, suggest
from autoprune.space.groups import FloatArray, WidthGroup, Widths

Normalisation: TypeAlias = Literal["l2", "mean", "max", "none"]

_NORMS: Mapping[str, Callable[[FloatArray], float]] = {
    "l2": lambda s: float(np.linalg.norm(s)),
    "mean": lambda s: float(s.mean()),
    "max": lambda s: float(s.max()),
    "none": lambda s: 1.0,
}


def global_threshold(domain: BudgetedSpace, scores: Sequence[FloatArray], *, normalise: Normalisation = "l2") -> Widths:
    """Return the widths that the lowest threshold within the budget leaves, rounded and repaired.

    No group falls below its smallest choice. Between two neighbouring thresholds, which may be far apart where many
    channels tie, the kept counts are interpolated to meet the budget.

    Args:
        domain: the space under its budget.
        scores: per group, (width,) importances of its channels, not negative.
        normalise: what the scores of a group are divided by.

    Raises:
        ConfigError: an unknown normalisation, or scores that do not fit the groups.
    """
    if normalise not in _NORMS:
        raise ConfigError(
            f"global_threshold: normalise cannot be {normalise!r}; choose one of {', '.join(_NORMS)}."
            f"{suggest(normalise, _NORMS)}"
        )
    groups = domain.space.groups
    if len(scores) != len(groups):
        raise ConfigError(f"global_threshold: scores of {len(scores)} groups given for a space of {len(groups)}")
    ranked = [_normalised(s, group, _NORMS[normalise]) for s, group in zip(scores, groups, strict=True)]
    thresholds = np.unique(np.concatenate([*ranked, [np.inf]]))[::-1]
    kept = np.stack([len(s) - np.searchsorted(np.sort(s), thresholds) for s in ranked], axis=1)  # score >= threshold
    kept = np.maximum(kept, domain.space.smallest)  # (T, G), growing down the rows
    usage = domain.budget.usage(kept)
    inside = int(np.searchsorted(usage, 1.0, side="right")) - 1
    if inside == len(kept) - 1:
        return domain.space.full
    share = (1.0 - usage[inside]) / (usage[inside + 1] - usage[inside])
    target = kept[inside] + share * (kept[inside + 1] - kept[inside])
    return tuple(int(w) for w in domain.repair(target[None, :])[0])


def _normalised(scores: FloatArray, group: WidthGroup, norm: Callable[[FloatArray], float]) -> FloatArray:
    s = np.asarray(scores, dtype=np.float64)
    if s.shape != (group.width,) or not np.isfinite(s).all() or (s < 0).any():
        raise ConfigError(
            f"global_threshold: group {group.name!r} needs {group.width} finite scores of at least 0, got "
            f"shape {s.shape}" + (f" with values from {s.min()} to {s.max()}" if s.size else "")
        )
    return s / (norm(s) or 1.0)
