"""What the scores of a group are divided by, so that groups compare; names for settings and allocations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias

import numpy as np

from autoprune.space.arrays import FloatArray

Normalisation: TypeAlias = Literal["l2", "mean", "max", "sum", "none"]

NORMS: Mapping[str, Callable[[FloatArray], float]] = {
    "l2": lambda s: float(np.linalg.norm(s)),
    "mean": lambda s: float(s.mean()),
    "max": lambda s: float(s.max()),
    "sum": lambda s: float(s.sum()),
    "none": lambda s: 1.0,
}


def normalised(scores: FloatArray, name: str) -> FloatArray:
    """(width,) scores divided by their norm; a group of zeros stays as it is."""
    return scores / (NORMS[name](scores) or 1.0)
