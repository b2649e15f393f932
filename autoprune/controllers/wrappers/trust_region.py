"""A trust region around the best trial, for any controller.

The region is a box of log ratios around the best score told. It doubles after three improvements in a row and halves
after as many failures as there are groups (at least 4), between 2^-7 / 0.8 and 2 times its first size: TuRBO's rule
(Eriksson et al. 2019, https://arxiv.org/abs/1910.01739, section 2, and its supplement for the constants). Below the
least size it starts anew at its first size, around the same best (which is the luckiest one, where scores are noisy).

A proposal outside is moved to the border of the box, repaired, and handed out in place of the controller's own. Its
score counts for the widths that were evaluated: controllers learn it as they learn others' trials, and those that
learn otherwise from their own proposals take it for one (`Controller.exchange`). As repair scales all ratios alike,
the handed-out widths may lie outside by that factor.

Of a search for several budgets the best score is near the largest one, and the region would leave the others without
proposals; so it is refused there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np

from autoprune.controllers.base import Controller, Trial
from autoprune.controllers.parts.history import History
from autoprune.controllers.parts.proposals import as_widths, unseen_near
from autoprune.controllers.parts.ratios import from_log_ratios, log_ratios
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import ConfigError
from autoprune.space.groups import Widths

_SUCCESSES = 3
_FEWEST_FAILURES = 4
_SMALLEST, _LARGEST = 0.5**7 / 0.8, 2.0
"""Bounds of the region's size, in units of the first one (TuRBO: 0.8, from 0.5^7 to 1.6)."""


@final
class TrustRegion(Controller):
    """Keeps a controller's proposals near the best trial so far; before there is one, they pass as they are.

    Args:
        domain: the space under its budget.
        inner: whose proposals are kept near.
        seed: of the variations that replace repeats.
        distance: first half width of the box, a difference of log ratios.

    Raises:
        ConfigError: the distance is not positive, or the controller scores networks above the budget or searches for
            several budgets.
    """

    def __init__(self, domain: BudgetedSpace, inner: Controller, *, seed: int, distance: float) -> None:
        if isinstance(distance, bool) or not isinstance(distance, int | float) or not 0 < distance < math.inf:
            raise ConfigError(f"trust_region must be a distance of log ratios above 0, such as 0.5, got {distance!r}")
        if not inner.keeps_budget:
            raise ConfigError(
                f"{type(inner).__name__} walks from the full network to the budget and cannot be held near the best "
                f"trial; leave trust_region out, or choose another controller"
            )
        if not inner.one_budget:
            raise ConfigError(
                f"{type(inner).__name__} searches for several budgets and trust_region {distance:g} would hold it near "
                f"the best trial, which is near the largest of them; leave trust_region out, search for one budget "
                f"(pareto: set budgets to []), or choose another controller"
            )
        self._domain, self._inner = domain, inner
        self._rng = np.random.default_rng([seed, 2])
        self._history = History(domain)
        self._first = self.distance = distance
        self._tolerance = max(_FEWEST_FAILURES, len(domain.space.groups))
        self._successes = self._failures = 0

    def ask(self, n: int = 1) -> list[Widths]:
        """Return `n` proposals of the controller, moved into the region."""
        return [self._history.mark(self._held(widths)) for widths in self._inner.ask(n)]

    def tell(self, trials: Sequence[Trial]) -> None:
        """Move and resize the region, and let the controller learn."""
        for trial in sorted(trials, key=lambda trial: trial.number):
            before = self._history.scores.get(self._history.best) if self._history.best else None
            own = trial.widths in self._history.pending
            scored = self._history.tell([trial])
            if scored and own and before is not None:
                self._resize(improved=scored[0][1] > before)
        self._inner.tell(trials)

    def winners(self) -> Mapping[float, Widths]:
        """Return those of the controller."""
        return self._inner.winners()

    def learned(self) -> Any:
        """Return what the controller has learned."""
        return self._inner.learned()

    def _held(self, proposed: Widths) -> Widths:
        if self._history.best is None:
            return proposed
        centre = log_ratios(self._domain, [self._history.best])
        logs = log_ratios(self._domain, [proposed])
        moved = self._domain.space.kinds.near(logs, centre, self.distance)
        if (moved == logs).all():
            return proposed
        held = as_widths(self._domain.repair(from_log_ratios(self._domain, moved))[0])
        if held in self._history.seen:
            held = unseen_near(self._domain, held, self._history.seen, self._rng)
        if held != proposed and proposed not in self._history.seen:  # it is not going to be scored
            self._inner.exchange(proposed, held)
        return held

    def _resize(self, *, improved: bool) -> None:
        self._successes = self._successes + 1 if improved else 0
        self._failures = 0 if improved else self._failures + 1
        if self._successes == _SUCCESSES:
            self.distance, self._successes = min(2 * self.distance, _LARGEST * self._first), 0
        elif self._failures == self._tolerance:
            self.distance, self._failures = self.distance / 2, 0
        if self.distance < _SMALLEST * self._first:
            self.distance = self._first
