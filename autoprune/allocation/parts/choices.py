"""One choice for each group, the smallest sum of losses under a budget: what is exact, and what comes near.

Losses add up over groups, costs do not: a product's cost couples the widths on both of its sides. Three steps:

1. The cost is made additive around a network: what each choice of one group costs while the others stay as they are.
   For additive costs dynamic programming is exact; it gives all undominated pairs of cost and loss. Their true costs
   are computed, the best one inside the budget is where the cost is made additive next, until nothing gets better.
2. Exchanges of one notch up against one or none down, by true costs.
3. Branch and bound by true costs, with the result as its bound, where it stays within a number of partial networks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from autoprune.space.groups import FloatArray, IntArray

Costs: TypeAlias = Sequence[Callable[[IntArray], FloatArray]]
"""Of each limit: (N, G) widths -> (N,) share of it that they use."""

STATES = 4_000
"""Undominated pairs that a step of the dynamic programme keeps; with more, one for each of so many steps of cost."""

PARTIAL = 200_000
"""Partial networks of one length up to which branch and bound goes on."""

_ROUNDS, _EXCHANGES = 20, 200
_BETTER = 1e-12


def least_loss(options: Sequence[IntArray], losses: Sequence[FloatArray], costs: Costs) -> tuple[IntArray, bool]:
    """(G,) widths with the smallest sum of losses that use at most 1 of every limit, and whether that is proved.

    Args:
        options: per group, ascending widths to choose from.
        losses: per group, the loss at each of them, never rising.
        costs: of each limit, never falling with a width. The narrowest options keep all of them.
    """
    best = np.zeros(len(options), dtype=np.int64)  # indices of choices
    for _ in range(_ROUNDS):
        found = min((_additively(options, losses, costs, cost, best) for cost in costs), key=lambda i: _sum(losses, i))
        if _sum(losses, found) >= _sum(losses, best) - _BETTER:
            break
        best = found
    best = _exchanged(options, losses, costs, best)
    proved = _branch_and_bound(options, losses, costs, best)
    chosen = best if proved is None else proved
    return _widths(options, chosen[None, :])[0], proved is not None


def undominated(costs: Sequence[FloatArray], losses: Sequence[FloatArray]) -> IntArray:
    """(N, G) choices of all undominated pairs of total cost and loss, by ascending cost; costs add up.

    It is exact while there are at most `STATES` of them; else each is within 1 / `STATES` of the range of costs, per
    group, of one that is.
    """
    total, loss, back = np.zeros(1), np.zeros(1), np.zeros((1, 0), dtype=np.int64)
    for cost, lost in zip(costs, losses, strict=True):
        new, worse = (total[:, None] + cost).ravel(), (loss[:, None] + lost).ravel()
        order = np.lexsort((worse, new))
        least = np.minimum.accumulate(worse[order])
        order = order[np.concatenate([[True], worse[order][1:] < least[:-1] - _BETTER])]
        if len(order) > STATES:
            cells = ((new[order] - new[order[0]]) / (new[order[-1]] - new[order[0]]) * STATES).astype(np.int64)
            order = order[np.append(np.flatnonzero(np.diff(cells)), len(order) - 1)]  # the best one of each cell
        total, loss = new[order], worse[order]
        back = np.column_stack([back[order // len(cost)], order % len(cost)])
    return back


def _additively(
    options: Sequence[IntArray],
    losses: Sequence[FloatArray],
    limits: Costs,
    cost: Callable[[IntArray], FloatArray],
    at: IntArray,
) -> IntArray:
    """The best choices among those that are undominated where one limit's cost is additive around some choices."""
    here = _widths(options, at[None, :])[0]
    added = []
    for group, widths in enumerate(options):
        rows = np.repeat(here[None, :], len(widths), axis=0)
        rows[:, group] = widths
        share = cost(rows)
        added.append(share - share[0])
    found = undominated(added, losses)
    inside = found[_keeps(limits, _widths(options, found))]
    rows = np.concatenate([inside, at[None, :]])
    chosen: IntArray = rows[int(np.argmin([_sum(losses, row) for row in rows]))]
    return chosen


def _exchanged(options: Sequence[IntArray], losses: Sequence[FloatArray], costs: Costs, best: IntArray) -> IntArray:
    n, most = len(options), np.array([len(o) - 1 for o in options])
    steps = np.eye(n, dtype=np.int64)
    moves = np.concatenate([steps, *(steps - np.roll(steps, shift, axis=1) for shift in range(1, n))])
    for _ in range(_EXCHANGES):
        rows = best + moves
        rows = rows[((rows >= 0) & (rows <= most)).all(axis=1)]
        rows = rows[_keeps(costs, _widths(options, rows))] if len(rows) else rows
        sums = np.array([_sum(losses, row) for row in rows])
        if not len(rows) or sums.min() >= _sum(losses, best) - _BETTER:
            break
        best = rows[int(np.argmin(sums))]
    return best


def _branch_and_bound(
    options: Sequence[IntArray], losses: Sequence[FloatArray], costs: Costs, best: IntArray
) -> IntArray | None:
    """The best choices of all, those given where none are better; None where there are too many to look at.

    A partial network is left when its losses, with the least that each group to come must lose, are no better than the
    best known, or when it exceeds a limit though all to come are at their narrowest.
    """
    bound, n = _sum(losses, best), len(options)
    order = np.argsort([-(float(lost[0]) - float(lost[-1])) for lost in losses], kind="stable")
    least = np.array([_unavoidable(options, losses, costs, group) for group in range(n)])
    rows = np.zeros((1, n), dtype=np.int64)
    spent = np.zeros(1)
    for place, group in enumerate(order):
        count = len(options[group])
        if len(rows) * count > PARTIAL:
            return None
        rows = np.repeat(rows, count, axis=0)
        rows[:, group] = np.tile(np.arange(count), len(spent))
        spent = (spent[:, None] + losses[group]).ravel()
        hopeful = spent + least[order[place + 1 :]].sum() < bound - _BETTER
        rows, spent = rows[hopeful], spent[hopeful]
        if not len(rows):
            return best
        inside = _keeps(costs, _widths(options, rows))
        rows, spent = rows[inside], spent[inside]
    return rows[int(np.argmin(spent))] if len(rows) else best


def _unavoidable(options: Sequence[IntArray], losses: Sequence[FloatArray], costs: Costs, group: int) -> float:
    """The loss of the widest choice of a group that fits while all others are at their narrowest."""
    rows = np.zeros((len(options[group]), len(options)), dtype=np.int64)
    rows[:, group] = np.arange(len(rows))
    return float(losses[group][_keeps(costs, _widths(options, rows))].min())


def _keeps(costs: Costs, rows: IntArray) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    inside: np.ndarray[tuple[int], np.dtype[np.bool_]] = np.max([cost(rows) for cost in costs], axis=0) <= 1.0
    return inside


def _widths(options: Sequence[IntArray], rows: IntArray) -> IntArray:
    return np.stack([widths[rows[:, group]] for group, widths in enumerate(options)], axis=1)


def _sum(losses: Sequence[FloatArray], row: IntArray) -> float:
    return float(sum(lost[i] for lost, i in zip(losses, row, strict=True)))
