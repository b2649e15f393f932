"""Simulated annealing: Kirkpatrick et al. 1983, https://doi.org/10.1126/science.220.4598.671, on pruning ratios.

As in AutoCompress (Liu et al. 2020, https://arxiv.org/abs/1907.03141, section 4.2): each move perturbs all ratios, by
less as the temperature falls, and a worse one is accepted with probability exp(-loss / temperature).

Departures: the first point is uniform pruning; proposals are repaired onto the budget; the unit of temperature is the
median loss of the moves so far, as scores have any scale and a network may collapse; several moves from one point may
be pending, and each is accepted or not when its score arrives.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import numpy as np

from autoprune.controllers.base import Controller, Trial
from autoprune.controllers.parts.history import History
from autoprune.controllers.parts.proposals import TRIES, unseen_variation
from autoprune.controllers.parts.ratios import from_log_ratios, log_ratios
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import ConfigError
from autoprune.space.groups import Widths

_UNKNOWN_LENGTH = 100


@final
class Annealing(Controller):
    """One point that moves: to what is better, and now and then to what is worse.

    Args:
        domain: the space under its budget.
        seed: of moves and acceptances.
        trials: the temperature falls to `stop` over this many scored moves, and stays there; 100 where unknown.
        start: first temperature, in median losses of a move.
        stop: last temperature.
        step: largest change of a ratio's logarithm at the first temperature.
        least_step: and at the last.

    Raises:
        ConfigError: a setting is out of its range.
    """

    def __init__(
        self,
        domain: BudgetedSpace,
        *,
        seed: int,
        trials: int | None = None,
        start: float = 1.0,
        stop: float = 0.02,
        step: float = 0.7,
        least_step: float = 0.1,
    ) -> None:
        if not 0 < stop <= start:
            raise ConfigError(f"annealing: stop must be above 0 and at most start, got stop={stop}, start={start}")
        if not 0 < least_step <= step:
            raise ConfigError(
                f"annealing: least_step must be above 0 and at most step, got least_step={least_step}, step={step}"
            )
        self._domain = domain
        self._rng = np.random.default_rng(seed)
        self._history = History(domain)
        self._uniform = domain.uniform()
        self._length = trials or _UNKNOWN_LENGTH
        self._temperatures, self._steps = (start, stop), (step, least_step)
        self._current: tuple[Widths, float] | None = None
        self._scored = 0
        self._losses: list[float] = []

    def ask(self, n: int = 1) -> list[Widths]:
        """Return `n` moves from the current point, uniform pruning first."""
        return [self._history.mark(self._propose()) for _ in range(n)]

    def tell(self, trials: Sequence[Trial]) -> None:
        """Accept or refuse each scored move in turn; the point also goes to others' trials that are better."""
        moves = self._history.pending & {trial.widths for trial in trials}
        for trial, score in self._history.tell(trials):
            move = trial.widths in moves
            self._scored += move
            if self._domain.feasible(np.array([trial.widths]))[0] and self._accepts(score, move=move):
                self._current = (trial.widths, score)

    def exchange(self, proposed: Widths, handed_out: Widths) -> None:
        """See `Controller.exchange`."""
        self._history.exchange(proposed, handed_out)

    def _propose(self) -> Widths:
        if self._uniform not in self._history.seen:
            return self._uniform
        point = log_ratios(self._domain, [self._current[0] if self._current else self._uniform])
        step = self._between(self._steps)
        steps = self._rng.uniform(-step, step, (TRIES, point.shape[1]))
        chosen = self._rng.random(steps.shape) < 1 / point.shape[1]
        moves = self._domain.space.kinds.moved(point, steps, chosen)
        widths = from_log_ratios(self._domain, moves)
        return unseen_variation(self._domain, widths, self._history.seen, self._rng)

    def _accepts(self, score: float, *, move: bool) -> bool:
        if self._current is None:
            return True
        loss = self._current[1] - score
        if loss <= 0 or not move:
            return loss <= 0
        draw = float(self._rng.random())
        self._losses.append(loss)
        unit = float(np.median(self._losses))
        return draw < math.exp(-loss / (unit * self._between(self._temperatures)))

    def _between(self, ends: tuple[float, float]) -> float:
        """From the first to the second, by a constant factor per scored move."""
        share = min(1.0, self._scored / self._length)
        return float(ends[0] * (ends[1] / ends[0]) ** share)
