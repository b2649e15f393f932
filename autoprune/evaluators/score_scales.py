"""By what scores of several kinds are standardised, so that they can be averaged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self, final

import numpy as np

from autoprune.space.groups import FloatArray


@final
@dataclass(frozen=True, slots=True)
class ScoreScales:
    """What scores are standardised by; one of each part.

    Attributes:
        means: of its scores of the drawn networks.
        deviations: of the same, and at least what noise alone makes; 0 where all have the same score.
    """

    means: tuple[float, ...]
    deviations: tuple[float, ...]

    @classmethod
    def of(cls, scores: FloatArray, errors: FloatArray) -> Self:
        """From (networks, parts) scores and their standard errors, NaN where they are not known."""
        known = np.isfinite(errors)
        noise = np.where(known, errors, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
        largest = np.maximum(np.abs(scores).max(axis=0), np.finfo(np.float64).tiny)
        shares = scores / largest  # nothing overflows
        spread = np.where(np.ptp(shares, axis=0) > _ROUNDING, largest * shares.std(axis=0), 0.0)
        return cls(tuple((largest * shares.mean(axis=0)).tolist()), tuple(np.maximum(spread, noise).tolist()))


_ROUNDING = 1e-12
"""Share of the largest score by which scores differ that are the same but for rounding."""
