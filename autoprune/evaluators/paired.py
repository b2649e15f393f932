"""Two networks on the same examples: how far the difference of their scores may be off, and which one is worse.

What two networks get right or wrong alike says nothing about which is better, and cancels in the differences of single
examples; so these are several times quieter than the scores.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from autoprune.measures.base import Values


def error_of_difference(ours: Values, theirs: Values) -> float:
    """Standard error of the difference of two means over the same examples; of truth values in percent, and never 0.

    Where answers are right or wrong it counts those that differ, with one of each kind more than there were, as
    `measures.base.binomial_error` does: a few examples without a difference do not show that there is none.

    Args:
        ours: (N,) values of one network, N at least 1.
        theirs: (N,) of the other one.
    """
    if ours.dtype.kind == "b" and theirs.dtype.kind == "b":
        better, worse = int((ours & ~theirs).sum()) + 1, int((theirs & ~ours).sum()) + 1
        n = len(ours) + 2
        return 100.0 * math.sqrt((better + worse) / n - ((better - worse) / n) ** 2) / math.sqrt(n)
    apart = ours.astype(np.float64) - theirs.astype(np.float64)
    return float(apart.std(ddof=1)) / math.sqrt(len(apart)) if len(apart) > 1 else math.inf


def probability_as_low(ours: Values, theirs: Values) -> float:
    """Probability of a difference at least this far below 0, of a network that is as good as the other one.

    Of truth values the exact sign test of the examples whose answers differ (McNemar 1947); of numbers Student's t of
    the differences.

    Args:
        ours: (N,) values of one network, higher is better.
        theirs: (N,) of the other one.
    """
    if ours.dtype.kind == "b" and theirs.dtype.kind == "b":
        better, worse = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
        return float(stats.binom.cdf(better, better + worse, 0.5)) if better + worse else 1.0
    apart = ours.astype(np.float64) - theirs.astype(np.float64)
    n, spread = len(apart), float(apart.std(ddof=1)) if len(apart) > 1 else 0.0
    if spread == 0:
        return 1.0
    return float(stats.t.cdf(apart.mean() / (spread / math.sqrt(n)), n - 1))
