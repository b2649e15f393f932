"""What the scores of a group are divided by, so that groups compare; names for settings and allocations."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from autoprune.space.arrays import FloatArray

NORMS: Mapping[str, Callable[[FloatArray], float]] = {
    "l2": lambda s: float(np.linalg.norm(s)),
    "mean": lambda s: float(s.mean()),
    "max": lambda s: float(s.max()),
    "sum": lambda s: float(s.sum()),
    "none": lambda s: 1.0,
}
