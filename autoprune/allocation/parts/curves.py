"""What each group alone loses at each of its widths: measured once, for rules that read sensitivity curves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from autoprune.allocation.base import Probe
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import ConfigError, EvaluationError
from autoprune.space.groups import FloatArray, IntArray, WidthGroup, Widths


@final
@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """Of one group, while all others are full.

    Attributes:
        widths: (n,) ascending choices, the full width last.
        losses: (n,) how much lower the score is than that of the full network, descending to 0.
    """

    widths: IntArray
    losses: FloatArray


def grid(group: WidthGroup, points: int) -> list[int]:
    """At most so many choices of a group below its full width, evenly spread over the ratios, the smallest among them.

    It does not depend on a budget, so that one table serves all budgets of a job.
    """
    choices = np.array(group.choices[:-1])
    if len(choices) <= points:
        return [int(c) for c in choices]
    wanted = np.linspace(choices[0], group.width, points + 1)[:-1]
    return sorted({int(choices[np.abs(choices - w).argmin()]) for w in wanted})


def measured(what: str, domain: BudgetedSpace, probe: Probe, points: int) -> list[Curve]:
    """Measure the curves of all groups: one evaluation of the full network, and one for each point.

    Scores are noisy, and a wider group should not lose more: a curve is the monotone one that is nearest in least
    squares (Ayer et al. 1955, pooling adjacent violators), which averages noise over neighbours instead of passing its
    peaks on to all narrower widths as a running maximum does. A point without a score is left out; a group without any
    point has the mean loss of all others at its smallest width.

    Args:
        what: the rule, for messages.
        domain: the space under its budget.
        probe: scores networks.
        points: of each curve, besides the full width.

    Raises:
        ConfigError: `points` is not a whole number of at least 1, or the probe gives something else than its scores.
        EvaluationError: the full network has no score.
    """
    if not isinstance(points, int) or isinstance(points, bool) or points < 1:
        raise ConfigError(f"{what}: points must be a whole number of at least 1, got {points!r}")
    full, grids = domain.space.full, [grid(group, points) for group in domain.space.groups]
    rows = [full, *(_cut(full, g, width) for g, widths in enumerate(grids) for width in widths)]
    scores = np.asarray(probe(rows), dtype=np.float64)
    if scores.shape != (len(rows),):
        raise ConfigError(f"{what}: a probe must give {len(rows)} scores, got shape {scores.shape}")
    if not np.isfinite(scores[0]):
        raise EvaluationError(f"{what}: the full network could not be scored, so that nothing is known of its groups")
    losses = scores[0] - scores[1:]
    known = losses[np.isfinite(losses)]
    usual = float(np.maximum(known, 0.0).mean()) if len(known) else 1.0
    curves, start = [], 0
    for group, widths in zip(domain.space.groups, grids, strict=True):
        curves.append(_curve(group, np.array(widths, dtype=np.int64), losses[start : start + len(widths)], usual))
        start += len(widths)
    return curves


def descending(values: FloatArray) -> FloatArray:
    """The sequence that never rises and is nearest to the (n,) values in least squares."""
    means: list[float] = []
    counts: list[int] = []
    for value in values:
        means.append(float(value))
        counts.append(1)
        while len(means) > 1 and means[-2] < means[-1]:
            count = counts[-2] + counts[-1]
            means[-2:] = [(means[-2] * counts[-2] + means[-1] * counts[-1]) / count]
            counts[-2:] = [count]
    return np.repeat(np.array(means, dtype=np.float64), counts)


def _curve(group: WidthGroup, widths: IntArray, losses: FloatArray, usual: float) -> Curve:
    known = np.isfinite(losses)
    widths, losses = widths[known], losses[known]
    if not len(widths) and len(group.choices) > 1:
        widths, losses = np.array(group.choices[:1]), np.array([usual])
    return Curve(np.append(widths, group.width), np.append(np.maximum(descending(losses), 0.0), 0.0))


def _cut(full: Widths, group: int, width: int) -> Widths:
    return (*full[:group], width, *full[group + 1 :])
