"""FastNAS: sensitivity curves and one tolerance, as in NVIDIA Model Optimizer's `modelopt.torch.prune` (fastnas.py).

Each group alone is cut to each of its ratios, in steps of 0.05, while all others stay full: its curve says how much
score each width loses, and a narrower width never counts as losing less. Then one tolerance is found by bisection at
which the network meets the budget if every group takes its narrowest width whose loss is below the tolerance.

Departures: curves are interpolated between the scored widths, in the order in which a curve gets sharper (its middle
first, then the quarters, ...), so that a short search has coarse curves of all groups rather than sharp ones of a few;
what remains of the budget is filled by `repair`; the network found is then scored, which Model Optimizer does not do,
and the best networks found are varied.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import final

import numpy as np

from autoprune.controllers.base import Controller, Trial
from autoprune.controllers.parts.history import History, near_best
from autoprune.controllers.parts.proposals import as_widths
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import ConfigError
from autoprune.space.groups import FloatArray, Widths

_BISECTIONS = 40
_FOR_CURVES = 0.8  # share of a search


@final
class FastNAS(Controller):
    """Curves of single groups first, which exceed the budget, then networks inside it.

    Args:
        domain: the space under its budget.
        seed: of the order of the groups, and of variations of what is found.
        trials: how many proposals the search will make, where that is known.
        step: distance of the ratios at which a curve is scored.

    Raises:
        ConfigError: `step` is out of its range.
    """

    keeps_budget = False

    def __init__(self, domain: BudgetedSpace, *, seed: int, trials: int | None = None, step: float = 0.05) -> None:
        if not 0 < step <= 0.5:
            raise ConfigError(f"fastnas: step must be above 0 and at most 0.5, got {step}")
        self._domain = domain
        self._rng = np.random.default_rng(seed)
        self._history = History(domain)
        self._scored: list[dict[int, float]] = [{} for _ in domain.space.groups]  # of each group cut alone
        self._found: Widths | None = None
        points = self._points(step)
        most = len(points) + 1 if trials is None else max(1, int(_FOR_CURVES * trials))
        self._todo = deque([domain.space.full, *points][:most])

    def ask(self, n: int = 1) -> list[Widths]:
        """Return `n` points of curves, then the network that the curves so far give, then variations of the best."""
        return [self._history.mark(self._propose()) for _ in range(n)]

    def tell(self, trials: Sequence[Trial]) -> None:
        """Add the scores of networks with one group cut to the curves."""
        full = self._domain.space.full
        for trial, _ in self._history.tell(trials):
            cut = [g for g, (width, whole) in enumerate(zip(trial.widths, full, strict=True)) if width != whole]
            if len(cut) == 1:
                self._scored[cut[0]][trial.widths[cut[0]]] = self._history.scores[trial.widths]
            if len(cut) < 2:
                self._found = None

    def _propose(self) -> Widths:
        while self._todo:
            if (point := self._todo.popleft()) not in self._history.seen:
                return point
        if self._found is None:
            self._found = self._solution()
        if self._found not in self._history.seen:
            return self._found
        return near_best(self._domain, self._history, self._rng)

    def _points(self, step: float) -> list[Widths]:
        """All points of all curves: the middle of every curve, then the quarters of every curve, and so on."""
        full = self._domain.space.full
        grids = []
        for group in self._domain.space.groups:
            wanted = np.arange(1.0 - step, 0.0, -step) * group.width
            index = np.abs(np.array(group.choices)[None, :] - wanted[:, None]).argmin(axis=1)
            grid = sorted({group.choices[i] for i in index} | {group.choices[0]})
            grids.append(_sharpening([width for width in grid if width < group.width]))
        points = []
        for rank in range(max(map(len, grids), default=0)):
            for group_index in self._rng.permutation(len(grids)):
                if rank < len(grids[group_index]):
                    width = grids[group_index][rank]
                    points.append((*full[:group_index], width, *full[group_index + 1 :]))
        return points

    def _solution(self) -> Widths:
        """The network at the smallest tolerance that meets the budget, filled up."""
        curves = self._curves()
        low, high = 0.0, max(1e-12, *(float(losses[-1]) for _, losses in curves))
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            inside = self._domain.budget.usage(self._at_tolerance(curves, middle))[0] <= 1.0
            low, high = (low, middle) if inside else (middle, high)
        return as_widths(self._domain.repair(self._at_tolerance(curves, high))[0])

    def _at_tolerance(self, curves: list[tuple[FloatArray, FloatArray]], tolerance: float) -> FloatArray:
        """(1, G) real widths: each group's narrowest one that loses at most the tolerance."""
        return np.array([[np.interp(tolerance, losses, widths) for widths, losses in curves]])

    def _curves(self) -> list[tuple[FloatArray, FloatArray]]:
        """Per group its scored widths, descending from the full one, and what each loses, strictly ascending from 0.

        A group without a scored width takes the mean loss of all others at its smallest width.
        """
        known = [score for of_group in self._scored for score in of_group.values()]
        whole = self._history.scores.get(self._domain.space.full, max(known, default=0.0))
        usual = float(np.mean([max(0.0, whole - score) for score in known])) if known else 1.0
        curves = []
        for group, of_group in zip(self._domain.space.groups, self._scored, strict=True):
            points = {width: whole - score for width, score in of_group.items()} or {group.choices[0]: usual}
            widths = np.array([group.width, *sorted(points, reverse=True)], dtype=np.float64)
            losses = np.maximum.accumulate([0.0, *(points[int(width)] for width in widths[1:])])
            curves.append((widths, losses + 1e-9 * (usual or 1.0) * np.arange(len(losses))))
        return curves


def _sharpening(grid: list[int]) -> list[int]:
    """The same widths, each halving the widest gap that those before it leave."""
    order, spans = [], deque([(0, len(grid))])
    while spans:
        start, stop = spans.popleft()
        if start < stop:
            middle = (start + stop) // 2
            order.append(grid[middle])
            spans += [(start, middle), (middle + 1, stop)]
    return order
