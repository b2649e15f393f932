"""Repair: put any proposal onto the budget, keeping its shape; a search never rejects a candidate late."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import final

import numpy as np

from autoprune.cost.budget import BAND, Budget
from autoprune.cost.polynomial import WidthMatrix
from autoprune.errors import BudgetError
from autoprune.space.groups import BoolArray, FloatArray, IntArray, SearchSpace, Widths

_BISECTIONS = 40
_MAX_FILL_PASSES = 64
_ENUMERABLE = 2_000_000  # entries of the matrix of members, 16 MB


@final
class BudgetedSpace:
    """A space under a budget: costs, feasibility, repair and random members; all that a controller may know.

    Args:
        space: the width groups.
        constraints: metric -> limit, as `Budget` takes them.

    Raises:
        BudgetError: the budget is malformed or cannot be reached (also by all limits together).
    """

    def __init__(self, space: SearchSpace, constraints: Mapping[str, str | float]) -> None:
        self.space = space
        self.budget = Budget(space, constraints)
        self._choices = [np.array(group.choices) for group in space.groups]
        self._smallest = np.array([space.smallest])
        self._full = np.array([space.full])

    def costs(self, widths: WidthMatrix) -> dict[str, FloatArray]:
        """Return metric -> (N,) costs of the (N, G) widths."""
        return self.budget.costs(widths)

    def feasible(self, widths: WidthMatrix) -> BoolArray:
        """Return (N,) True where the row is inside the budget."""
        inside: BoolArray = self.budget.usage(widths) <= 1.0
        return inside

    def sample(self, n: int, rng: np.random.Generator) -> IntArray:
        """Return (n, G) random members on the budget: independent uniform ratios per group, repaired."""
        ratios = rng.uniform(0.05, 1.0, size=(n, len(self._choices)))
        return self.repair(ratios * self._full)

    def uniform(self, *, inner_only: bool = False) -> Widths:
        """The uniform member on the budget: one ratio on every group, or on all but the residual ones.

        Raises:
            BudgetError: `inner_only`, and the budget cannot be reached with full residual groups.
        """
        pinned = np.array([inner_only and group.residual for group in self.space.groups])
        return tuple(int(w) for w in self.repair(self._full.astype(np.float64), pinned=pinned)[0])

    def repair(self, proposals: WidthMatrix, *, pinned: BoolArray | None = None) -> IntArray:
        """Scale every row by one factor onto the budget, round to allowed widths, fill what is left.

        Members that use 0.97 to 1.00 of the tightest limit come back unchanged. Where rounding misses this band, all
        members inside the budget are searched if they can be listed, so that the band is missed only where it is
        empty; in a space with more of them, exchanges of single notches may miss it. The fullest one comes back then.

        Args:
            proposals: (N, G) positive widths, real or integer, members of the space or not.
            pinned: (G,) groups that stay at their full width.

        Returns:
            (N, G) members of the space inside the budget.

        Raises:
            BudgetError: the pinned groups alone are over the budget.
        """
        p = np.maximum(np.atleast_2d(np.asarray(proposals, dtype=np.float64)), 1e-9)
        low, high = self._smallest.astype(np.float64).copy(), self._full.astype(np.float64)
        if pinned is not None and pinned.any():
            low[0, pinned] = high[0, pinned]
        if self.budget.usage(low)[0] > 1.0:
            self._raise_unreachable(low)
        target = self._scale(p, low, high)
        widths = self._round_down(target)
        widths = self._fill(widths, target)
        widths = self._search_where_loose(widths, target, low)
        keep = self._members_in_band(p, low)
        widths[keep] = p[keep].astype(np.int64)
        return widths

    def _scale(self, p: FloatArray, low: FloatArray, high: FloatArray) -> FloatArray:
        """Bisect the log of one factor per row; costs are monotone in the widths."""
        below = np.log((low / p).min(axis=1))
        above = np.log((high / p).max(axis=1))
        for _ in range(_BISECTIONS):
            middle = (below + above) / 2
            inside = self.budget.usage(np.clip(p * np.exp(middle)[:, None], low, high)) <= 1.0
            below, above = np.where(inside, middle, below), np.where(inside, above, middle)
        whole = self.budget.usage(np.broadcast_to(high, p.shape)) <= 1.0
        scaled: FloatArray = np.clip(p * np.exp(below)[:, None], low, high)
        scaled[whole] = high
        return scaled

    def _round_down(self, target: FloatArray) -> IntArray:
        columns = []
        for group, choices in enumerate(self._choices):
            index = np.searchsorted(choices, target[:, group], side="right") - 1
            columns.append(choices[np.maximum(index, 0)])
        return np.stack(columns, axis=1).astype(np.int64)

    def _next(self, widths: IntArray) -> IntArray:
        """The next larger choice of every entry (the entry itself where it is full)."""
        columns = []
        for group, choices in enumerate(self._choices):
            index = np.searchsorted(choices, widths[:, group], side="right")
            columns.append(choices[np.minimum(index, len(choices) - 1)])
        return np.stack(columns, axis=1).astype(np.int64)

    def _fill(self, widths: IntArray, target: FloatArray) -> IntArray:
        """Raise groups notch by notch, the largest remainder first, as long as the budget holds."""
        filled = widths.copy()
        rows = np.arange(len(filled))
        for _ in range(_MAX_FILL_PASSES):
            raised = self._next(filled[rows])
            step = np.maximum(raised - filled[rows], 1)
            order = np.argsort(-(target[rows] - filled[rows]) / step, axis=1, kind="stable")
            before = filled[rows].copy()
            for rank in range(order.shape[1]):
                trial = filled[rows]
                column = order[:, rank]
                here = np.arange(len(rows))
                trial[here, column] = raised[here, column]
                fits = self.budget.usage(trial) <= 1.0
                filled[rows[fits]] = trial[fits]
            changed = (filled[rows] != before).any(axis=1)
            rows = rows[changed & (self.budget.usage(filled[rows]) < BAND)]
            if not len(rows):
                break
        return filled

    def _search_where_loose(self, widths: IntArray, target: FloatArray, low: FloatArray) -> IntArray:
        """Coarse choices: look for a member in the band, among all where they can be listed, else by exchanges."""
        loose = np.flatnonzero(self.budget.usage(widths) < BAND)
        if len(loose) and self._feasible_members is not None:
            widths[loose] = _closest(*self._feasible_members, target[loose], low)
        else:
            for row in loose:
                widths[row] = self._exchange(widths[row : row + 1], low)
        return widths

    @cached_property
    def _feasible_members(self) -> tuple[IntArray, FloatArray] | None:
        """All members inside the budget and what they use of it; None where there are too many to list."""
        members = self._smallest
        for group, choices in enumerate(self._choices):  # costs are monotone: what is over the budget stays so
            if len(members) * len(choices) * len(self._choices) > _ENUMERABLE:
                return None
            members = np.repeat(members, len(choices), axis=0)
            members[:, group] = np.tile(choices, len(members) // len(choices))
            members = members[self.budget.usage(members) <= 1.0]
        return members, self.budget.usage(members)

    def _exchange(self, best: IntArray, low: FloatArray) -> IntArray:
        """Give up one notch of some group where refilling the others then uses more of the budget, again and again."""
        used = -1.0
        while used < self.budget.usage(best)[0] < BAND:
            used = float(self.budget.usage(best)[0])
            lowered = np.repeat(best, len(self._choices), axis=0)
            for group, choices in enumerate(self._choices):
                index = int(np.searchsorted(choices, lowered[group, group]))
                if index > 0 and choices[index - 1] >= low[0, group]:
                    lowered[group, group] = choices[index - 1]
            blocked = np.where(lowered < best, -np.inf, self._full.astype(np.float64))  # refill the lowered one last
            options = np.concatenate([best, self._fill(lowered, blocked)])
            best = options[[int(np.argmax(self.budget.usage(options)))]]
        row: IntArray = best[0]
        return row

    def _members_in_band(self, p: FloatArray, low: FloatArray) -> BoolArray:
        whole = p.astype(np.int64)
        usage = self.budget.usage(whole)
        member: BoolArray = (usage >= BAND) & (usage <= 1.0) & (whole == p).all(axis=1) & (whole >= low).all(axis=1)
        for group, choices in enumerate(self._choices):
            member &= np.isin(whole[:, group], choices)
        return member

    def _raise_unreachable(self, low: FloatArray) -> None:
        costs = ", ".join(f"{name} {cost[0]:,.0f}" for name, cost in self.costs(low).items())
        raise BudgetError(
            f"budget {self.budget} cannot be reached with the widths that must stay full: "
            f"the smallest such network costs {costs}; raise the limit"
        )


def _closest(members: IntArray, usage: FloatArray, targets: FloatArray, low: FloatArray) -> IntArray:
    """For each target the member in the band with the closest ratios of widths; without a band, of the fullest."""
    allowed = (members >= low).all(axis=1)
    members, usage = members[allowed], usage[allowed]
    members = members[usage >= min(BAND, usage.max())]
    logs = np.log(members)
    lengths = np.square(logs).sum(axis=1)
    nearest = [np.argmin(lengths - 2.0 * (logs @ t)) for t in np.log(targets)]  # |logs - t|² without the constant |t|²
    closest: IntArray = members[nearest]
    return closest
