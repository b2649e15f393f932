"""How far the default controller's answers lie above another controller's, and how sure that is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from autoprune.space.groups import Widths
from search_problems.replay import PROBABLE, Answer, Replay


@final
@dataclass(frozen=True)
class Difference:
    """The default controller's most probable widths against another one's answer.

    Attributes:
        mean: of the difference between their gains.
        error: its standard error over the repetitions.
        shared: standard error by the luck of rows, which all repetitions on one table share; 0 where they share none.
    """

    mean: float
    error: float
    shared: float

    @property
    def errors(self) -> float:
        """The difference in standard errors over the repetitions."""
        return self.mean / self.error if self.error else 0.0

    @property
    def errors_with_luck(self) -> float:
        """The difference in standard errors that count the luck of rows, too."""
        both = float(np.hypot(self.error, self.shared))
        return self.mean / both if both else 0.0


def difference(
    ours: Sequence[Replay], others: Sequence[Replay], n: int, answer: str, row_luck: float = 0.0
) -> Difference:
    """Compare the answers after `n` evaluations, repetition by repetition: both had the same noise.

    Args:
        ours: of the default controller.
        others: of the other one.
        n: evaluations.
        answer: which answer of the other one.
        row_luck: standard deviation of the luck of one row of a table that all repetitions share.
    """
    pairs = [(a.answers[n][PROBABLE], b.answers[n][answer]) for a, b in zip(ours, others, strict=False)]
    gaps = np.array([a.gain - b.gain for a, b in pairs])
    error = float(gaps.std(ddof=1) / np.sqrt(len(gaps))) if len(gaps) > 1 else np.nan
    return Difference(float(gaps.mean()), error, row_luck * _spread(pairs) if row_luck else 0.0)


def _spread(pairs: Sequence[tuple[Answer, Answer]]) -> float:
    """Norm of the difference between the two distributions over rows, free of what few repetitions add to it.

    The luck of the rows enters the difference between two controllers with these weights.
    """
    first, second = [a.widths for a, _ in pairs], [b.widths for _, b in pairs]
    n = len(pairs)
    if n < 2:
        return np.nan
    same = sum(count * (count - 1) for side in (first, second) for count in Counter(side).values())
    counts: Counter[Widths] = Counter(second)
    crossed = sum(counts[widths] for widths in first) - sum(a == b for a, b in zip(first, second, strict=True))
    return float(np.sqrt(max(0.0, (same - 2 * crossed) / (n * (n - 1)))))
