"""The cosine schedule."""

from __future__ import annotations

import math


def cosine(done: float, warm: float) -> float:
    """Half a cosine, from 1 after the warm-up to 0: (1 + cos(pi (done - warm) / (1 - warm))) / 2."""
    return (1 + math.cos(math.pi * (done - warm) / (1 - warm))) / 2
