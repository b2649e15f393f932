"""Repair: put any proposal onto the budget, keeping its shape; a search never rejects a candidate late.

Longer than others, as it is one class, whose steps hand a proposal on to one another.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import final

import numpy as np

from autoprune.cost.budget.budget import BAND, Bound, Budget
from autoprune.cost.budget.limits import number
from autoprune.cost.budget.notches import Notches, closest
from autoprune.cost.budget.ranges import inside_all_ranges
from autoprune.cost.polynomial import CostFunction, WidthMatrix
from autoprune.cost.pricing import MetricSettings
from autoprune.errors import BudgetError
from autoprune.space.groups import BoolArray, FloatArray, IntArray, SearchSpace, Widths
from autoprune.space.kinds.base import LACKING, Settling

_BISECTIONS = 40
_MAX_FILL_PASSES = 64
_MIXTURES = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)  # shares of the member that is inside all ranges
_SHRINKS, _NOTCH = 80, 0.97  # the last step is the smallest network
_ENUMERABLE = 2_000_000  # entries of the matrix of members, 16 MB


@final
class BudgetedSpace:
    """A space under a budget: costs, feasibility, repair and random members; all that a controller may know.

    Args:
        space: the width groups.
        constraints: metric -> limit, as `Budget` takes them.
        metrics: metric -> its settings.
        priced: the metrics of another budget of this space, with the same settings; None: they are computed.

    Raises:
        BudgetError: the budget is malformed or cannot be reached (also by all limits together).
        RegistryError: an unknown metric.
        ConfigError: settings that a metric does not take.
    """

    def __init__(
        self,
        space: SearchSpace,
        constraints: Mapping[str, Bound],
        *,
        metrics: MetricSettings | None = None,
        priced: Mapping[str, CostFunction] | None = None,
    ) -> None:
        self.space = space
        self.budget = Budget(space, constraints, metrics, priced=priced)
        self._notches = Notches(space)
        self._smallest = np.array([space.smallest])
        self._full = np.array([space.full])
        self._held: BoolArray = ~space.kinds.scales  # settled before the others scale
        if self.budget.has_ranges:
            low, high = self._smallest.astype(np.float64), self._full.astype(np.float64)
            self._anchor = inside_all_ranges(self.budget, high, lambda rows: self._onto_limit(rows, low, high))

    def scaled(self, factor: float) -> BudgetedSpace:
        """The same space under limits that are all this many times as large, upper ends and lower.

        Raises:
            BudgetError: they cannot be reached.
        """
        limits: dict[str, Bound] = {
            limit.metric: {"max": factor * limit.upper, **({"min": factor * limit.lower} if limit.lower else {})}
            for limit in self.budget.limits
        }
        return self.under(limits)

    def under(self, constraints: Mapping[str, Bound]) -> BudgetedSpace:
        """The same space under other limits; its metrics are not computed anew.

        Raises:
            BudgetError: they cannot be reached.
        """
        return BudgetedSpace(self.space, constraints, metrics=self.budget.settings, priced=self.budget.metrics)

    def costs(self, widths: WidthMatrix) -> dict[str, FloatArray]:
        """Return metric -> (N,) costs of the (N, G) widths."""
        return self.budget.costs(widths)

    def feasible(self, widths: WidthMatrix) -> BoolArray:
        """Return (N,) True where the row is inside the budget."""
        return self.budget.keeps(widths)

    def sample(self, n: int, rng: np.random.Generator) -> IntArray:
        """Return (n, G) random members on the budget: independent uniform ratios per group, repaired.

        Of what can be left out, each member lacks a random share of at most a half.
        """
        ratios = rng.uniform(0.05, 1.0, size=(n, len(self.space.groups)))
        chances = np.zeros_like(ratios)
        if self._held.any():
            lacking = rng.uniform(0.0, LACKING, size=(n, 1))
            chances[:, self._held] = rng.random((n, int(self._held.sum()))) - lacking
        return self.repair(self.space.kinds.drawn(ratios, chances))

    def uniform(self, *, inner_only: bool = False) -> Widths:
        """The uniform member on the budget: one ratio on every group, or on all but the residual ones.

        What does not scale (blocks) stays whole, unless the budget cannot be reached so.

        Raises:
            BudgetError: `inner_only`, and the budget cannot be reached with full residual groups.
        """
        pinned = np.array([inner_only and group.residual for group in self.space.groups])
        kept = pinned | self._held
        if self.budget.usage(np.where(kept, self._full, self._smallest))[0] <= 1.0:
            pinned = kept
        return tuple(int(w) for w in self.repair(self._full.astype(np.float64), pinned=pinned)[0])

    def repair(self, proposals: WidthMatrix, *, pinned: BoolArray | None = None) -> IntArray:
        """Scale every row by one factor onto the budget, round to allowed widths, fill what is left.

        A block that can be left out is there where its proposal is at least 0.5. It changes sides only where the budget
        cannot be reached or used up otherwise. The widths inside a block that is off are scaled like all others.

        Members that use 0.97 to 1.00 of the tightest limit come back unchanged. Where rounding misses this band, all
        members inside the budget are searched if they can be listed, so that the band is missed only where it is
        empty; in a space with more of them, exchanges of single notches may miss it. The fullest one comes back then.

        Scaling alone may leave a range: the tightest limit is reached while another metric is still below its lower
        end. Such a row is mixed with a member that is inside all ranges, as little as it takes. A metric that is not
        quite monotone (a latency table) may put a rounded row over its limit; that row is scaled down further.

        Args:
            proposals: (N, G) positive widths, real or integer, members of the space or not; 0 is a block that is off.
            pinned: (G,) groups that stay at their full width.

        Returns:
            (N, G) members of the space inside the budget.

        Raises:
            BudgetError: the pinned groups alone are over the budget.
        """
        given = np.atleast_2d(np.asarray(proposals, dtype=np.float64))
        low, high = self._smallest.astype(np.float64).copy(), self._full.astype(np.float64)
        if pinned is not None and pinned.any():
            low[0, pinned] = high[0, pinned]
        if self.budget.usage(low)[0] > 1.0:
            self._raise_unreachable(low)
        keep = self._members_in_band(given, low)
        widths = given.astype(np.int64)
        if not keep.all():
            widths[~keep] = self._put_inside(given[~keep], low, high)
        return widths

    def _put_inside(self, given: FloatArray, low: FloatArray, high: FloatArray) -> IntArray:
        widths = self._onto_limit(given, low, high)
        for share in _MIXTURES if self.budget.has_ranges else ():
            outside = self.budget.shortfall(widths) > 0
            if not outside.any():
                break
            mixed = np.maximum(given[outside], 1e-9) ** (1 - share) * np.maximum(self._anchor, 1e-9) ** share
            widths[outside] = self._onto_limit(mixed, low, high)
        if self.budget.has_ranges and (self.budget.shortfall(widths) > 0).any():
            self._raise_unreachable(low)
        return widths

    def _onto_limit(self, given: FloatArray, low: FloatArray, high: FloatArray) -> IntArray:
        """Members below all upper ends, as full as they can be with about these ratios."""
        floor, ceiling = self._settled(given, low, high)
        target = self._scale(np.maximum(given, 1e-9), floor, ceiling)
        widths = self._shrink(self._notches.round_down(target), target, floor)
        widths = self._fill(widths, target, frozen=self._held)
        return self._search_where_loose(widths, target, low)

    def _shrink(self, widths: IntArray, target: FloatArray, floor: FloatArray) -> IntArray:
        """Scale rows down further that are over the budget once they are rounded: fewer channels may cost more."""
        over = np.flatnonzero(self.budget.usage(widths) > 1.0)
        for step in range(1, _SHRINKS + 1):
            if not len(over):
                break
            smaller = floor[over] if step == _SHRINKS else np.maximum(target[over] * _NOTCH**step, floor[over])
            widths[over] = self._notches.round_down(smaller)
            over = over[self.budget.usage(widths[over]) > 1.0]
        return widths

    def _settled(self, given: FloatArray, low: FloatArray, high: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(N, G) bounds in which all that does not scale has its width: its kind decides it, the budget with it."""
        low, high = (np.repeat(bound, len(given), axis=0) for bound in (low, high))
        self.space.kinds.settle(Settling(given, low, high, self._uses_of_held, self.budget.usage, BAND))
        return low, high

    @cached_property
    def _uses_of_held(self) -> FloatArray:
        """(G,) what each group that does not scale uses of the budget in the smallest network with all of them."""
        uses = np.zeros(len(self._held))
        every = np.where(self._held, self._full, self._smallest)
        without = np.where(np.eye(len(uses), dtype=np.bool_)[self._held], self._smallest, every)
        uses[self._held] = self.budget.usage(every) - self.budget.usage(without)
        return uses

    def _scale(self, p: FloatArray, low: FloatArray, high: FloatArray) -> FloatArray:
        """Bisect the log of one factor per row, within (N, G) bounds; costs are monotone in the widths."""
        below = np.log(np.where(self._held, 1.0, low / p).min(axis=1))
        above = np.log(np.where(self._held, 1.0, high / p).max(axis=1))
        for _ in range(_BISECTIONS):
            middle = (below + above) / 2
            inside = self.budget.usage(np.clip(p * np.exp(middle)[:, None], low, high)) <= 1.0
            below, above = np.where(inside, middle, below), np.where(inside, above, middle)
        whole = self.budget.usage(high) <= 1.0
        scaled: FloatArray = np.clip(p * np.exp(below)[:, None], low, high)
        scaled[whole] = high[whole]
        return scaled

    def _fill(self, widths: IntArray, target: FloatArray, *, frozen: BoolArray | None = None) -> IntArray:
        """Raise groups, but the (G,) frozen ones, notch by notch as the budget holds, the largest remainder first."""
        filled = widths.copy()
        rows = np.arange(len(filled))
        for _ in range(_MAX_FILL_PASSES):
            raised = self._notches.next(filled[rows])
            if frozen is not None:
                raised[:, frozen] = filled[rows][:, frozen]
            step = np.maximum(raised - filled[rows], 1)
            order = np.argsort(-(target[rows] - filled[rows]) / step, axis=1, kind="stable")
            before = filled[rows]
            now, here = before.copy(), np.arange(len(rows))
            steps = self.budget.steps(now)
            for column in order.T:
                value = raised[here, column]
                fits = steps.changed(column, value) <= 1.0
                now[here[fits], column[fits]] = value[fits]
                steps.keep(fits)
            filled[rows] = now
            changed = (now != before).any(axis=1)
            rows = rows[changed & (self.budget.usage(filled[rows]) < BAND)]
            if not len(rows):
                break
        return filled

    def _search_where_loose(self, widths: IntArray, target: FloatArray, low: FloatArray) -> IntArray:
        """Coarse choices: look for a member in the band, among all where they can be listed, else by exchanges."""
        loose = np.flatnonzero((self.budget.usage(widths) < BAND) | (self.budget.shortfall(widths) > 0))
        if len(loose) and self._feasible_members is not None:
            members, usage = self._feasible_members
            allowed = (members >= low).all(axis=1)
            if allowed.any():  # else no member keeps the limits with these widths held, as is told where it matters
                widths[loose] = closest(members[allowed], usage[allowed], target[loose])
        else:
            for row in loose:
                found = self._exchange(widths[row : row + 1], low, frozen=self._held)
                found = self._less_extreme(found, target[row : row + 1], low)
                widths[row] = self._exchange(found, low)[0]  # blocks come and go only where nothing else helps
        return widths

    def _less_extreme(self, best: IntArray, target: FloatArray, low: FloatArray) -> IntArray:
        """Step from a target that rounding cannot meet towards equal ratios, until a member of the band is met."""
        floor = np.where(self._held, best, low).astype(np.float64)
        ceiling = np.where(self._held, best, self._full).astype(np.float64)
        for step in (0.2, 0.4, 0.6, 0.8, 1.0):
            if self.budget.usage(best)[0] >= BAND:
                break
            mixed = np.maximum(target, 1e-9) ** (1 - step) * self._full**step
            scaled = self._scale(mixed, floor, ceiling)
            filled = self._fill(self._notches.round_down(scaled), scaled, frozen=self._held)
            options = np.concatenate([best, self._exchange(filled, low, frozen=self._held)])
            best = options[[int(np.argmax(self.budget.usage(options)))]]
        return best

    @cached_property
    def _feasible_members(self) -> tuple[IntArray, FloatArray] | None:
        """All members inside the budget and what they use of it; None where there are too many to list."""
        members = self._notches.members(_ENUMERABLE, lambda rows: self.budget.usage(rows) <= 1.0)
        if members is None:
            return None
        inside = self.budget.keeps(members)
        members = members[inside] if inside.any() else members
        return members, self.budget.usage(members)

    def _exchange(self, best: IntArray, low: FloatArray, *, frozen: BoolArray | None = None) -> IntArray:
        """Give up one notch of some group where refilling the others then uses more of the budget, again and again."""
        used = -1.0
        while used < self.budget.usage(best)[0] < BAND:
            used = float(self.budget.usage(best)[0])
            lowered = self._notches.one_less(best, low, frozen)
            blocked = np.where(lowered < best, -np.inf, self._full.astype(np.float64))  # refill the lowered one last
            options = np.concatenate([best, self._fill(lowered, blocked, frozen=frozen)])
            best = options[[int(np.argmax(self.budget.usage(options)))]]
        return best

    def _members_in_band(self, p: FloatArray, low: FloatArray) -> BoolArray:
        whole = p.astype(np.int64)
        band = self.budget.keeps(whole) & (self.budget.usage(whole) >= BAND)
        found: BoolArray = band & (whole == p).all(axis=1) & (whole >= low).all(axis=1)
        if found.any():
            found[found] = self._notches.allowed(whole[found])
        return found

    def _raise_unreachable(self, low: FloatArray) -> None:
        full = self.costs(self._full)
        costs = ", ".join(
            f"{name} {number(cost[0])} to {number(full[name][0])}" for name, cost in self.costs(low).items()
        )
        raise BudgetError(
            f"budget {self.budget} cannot be reached with the widths that must stay full: "
            f"such networks cost {costs}; raise the limit"
        )
