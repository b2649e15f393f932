"""The widths with the largest sum of logarithms under the budget: our finding, see `log_width`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoprune.allocation.parts.path import repaired
from autoprune.allocation.parts.shapes import writers
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.space.groups import FloatArray, Widths

_BISECTIONS, _STEPS = 60, 300
_CLOSE = 1e-7
_APART = 1e-3  # of the logarithms between which a slope is taken
_SHARPNESS = 64.0  # of the norm that stands for the tightest of several limits


def log_width(domain: BudgetedSpace, scores: Sequence[FloatArray] = ()) -> Widths:
    """Maximise Σ_g m_g log c_g under the budget, where m_g counts the layers that write group g.

    Where the Karush-Kuhn-Tucker conditions hold, a group inside its bounds has c_g ∂cost/∂c_g = m_g / μ: its share of
    the cost, of what it writes and what it reads, is proportional to the number of layers that write it; the others
    are at their smallest or full width. Costs of FLOPs and parameters are sums of products of widths, so that the
    problem is convex in log c and has one solution (a geometric program), and water filling finds it: every width
    moves half the way to where its share fits, at the μ that meets the budget, until nothing moves.

    That Σ log c_out ranks networks of equal FLOPs is an empirical finding of ours on the two spaces of
    Channel-Bench-Macro (within bins of FLOPs, Kendall's τ with the accuracy of trained networks 0.4 for ResNet and 0.55
    for MobileNet, above one training of 60 epochs), not a theorem: for other networks, look at what it scores.
    Needs shapes only; scores are not looked at. Latency tables and peak memory are not sums of products: there the
    result is where the same steps end.

    Args:
        domain: the space under its budget.
        scores: not looked at.
    """
    return repaired(domain, optimum(domain))


def optimum(domain: BudgetedSpace) -> FloatArray:
    """(G,) the real-valued widths of the maximum, before they are rounded."""
    low, high = (np.array(w, dtype=np.float64) for w in (domain.space.smallest, domain.space.full))
    if domain.budget.usage(high[None, :])[0] <= 1.0:
        return high
    held = ~domain.space.kinds.scales
    low[held] = high[held]
    if domain.budget.usage(low[None, :])[0] > 1.0:  # not with all blocks: the repair decides which of them go
        return low
    counts = np.array([max(1, len(of_group)) for of_group in writers(domain.space)], dtype=np.float64)
    lows, highs = np.log(low), np.log(high)
    point = highs
    for _ in range(_STEPS):
        moved = _step(domain, counts, point, lows, highs)
        change = float(np.abs(moved - point).max())
        point = moved
        if change < _CLOSE:
            break
    return np.exp(point)


def _step(
    domain: BudgetedSpace, counts: FloatArray, point: FloatArray, low: FloatArray, high: FloatArray
) -> FloatArray:
    """(G,) log widths half the way to where shares fit, at the price that meets the budget to first order."""
    used = float(_usage(domain, np.exp(point)[None, :])[0])
    slopes = np.maximum(_slopes(domain, point), 1e-12)
    wanted = np.log(counts / slopes)

    def moves(price: float) -> FloatArray:
        return np.clip(point + 0.5 * np.clip(wanted - price, -2.0, 2.0), low, high) - point

    cheap, dear = float(wanted.min()) - 2.0, float(wanted.max()) + 2.0  # all widths rise, all fall
    for _ in range(_BISECTIONS):
        price = (cheap + dear) / 2
        over = np.log(used) + float(slopes @ moves(price)) / used > 0.0
        cheap, dear = (price, dear) if over else (cheap, price)
    moved: FloatArray = point + moves(dear)
    return moved


def _slopes(domain: BudgetedSpace, point: FloatArray) -> FloatArray:
    """(G,) what the budget's use grows by per unit of each log width."""
    steps = _APART * np.eye(len(point))
    above, below = (_usage(domain, np.exp(point + sign * steps)) for sign in (1, -1))
    slopes: FloatArray = (above - below) / (2 * _APART)
    return slopes


def _usage(domain: BudgetedSpace, rows: FloatArray) -> FloatArray:
    """(N,) use of the budget; of several limits a norm that is smooth and at least that of the tightest."""
    shares = [domain.budget.metrics[x.metric](rows) / min(x.upper, x.full) for x in domain.budget.limits]
    if len(shares) == 1:
        return shares[0]
    tightest = np.max(shares, axis=0)
    scaled = np.array(shares) / np.maximum(tightest, 1e-300)
    smooth: FloatArray = tightest * (scaled**_SHARPNESS).sum(axis=0) ** (1 / _SHARPNESS)
    return smooth
