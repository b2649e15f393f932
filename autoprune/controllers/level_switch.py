"""EvoPress: Sieberling et al. 2024, https://arxiv.org/abs/2410.14649, algorithm 1; DarwinLM searches like it.

An elitist evolution with one parent: each of its children has one group a level narrower and another one as much wider
as that frees, so that costs stay equal; this is done min(u, v) times, u and v drawn from 1 to 3. The best of a
generation and its parent is the next parent. The first parent is uniform pruning.

Departures: children are scored by the job's evaluator as a whole. The paper scores all on few examples and few on many,
which is the evaluator's affair here. Its levels are database entries of equal size; here a level is a share of a
group's full width, and the wider group takes the largest width that the budget allows. A child is not held back until
its generation has ended: while scores are pending, the parent has more children. A parent that has no more of them
gives way to the best network known.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np

from autoprune.controllers.base import Controller, Trial
from autoprune.controllers.parts.history import History, near_best
from autoprune.controllers.parts.proposals import TRIES, as_widths
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import ConfigError
from autoprune.space.groups import IntArray, Widths

_OFFSPRING, _FEWEST, _GENERATIONS = 64, 4, 10


@final
class LevelSwitch(Controller):
    """One group narrower, another wider at equal cost; the best of a generation and its parent goes on.

    Args:
        domain: the space under its budget.
        seed: of every random choice.
        trials: how many proposals the search will make, where that is known.
        offspring: children of a generation; None: 64 as in the paper, fewer where that leaves no ten generations.
        levels: a level is this part of a group's full width.
        switches: most switches of one child.

    Raises:
        ConfigError: a setting is out of its range.
    """

    def __init__(
        self,
        domain: BudgetedSpace,
        *,
        seed: int,
        trials: int | None = None,
        offspring: int | None = None,
        levels: int = 10,
        switches: int = 3,
    ) -> None:
        usual = _OFFSPRING if trials is None else min(_OFFSPRING, max(_FEWEST, trials // _GENERATIONS))
        self._offspring = usual if offspring is None else offspring
        for name, value, least in (("offspring", self._offspring, 1), ("levels", levels, 2), ("switches", switches, 1)):
            if value < least:
                raise ConfigError(f"level_switch: {name} must be at least {least}, got {value}")
        self._domain, self._levels, self._switches = domain, levels, switches
        self._rng = np.random.default_rng(seed)
        self._history = History(domain)
        self._parent = domain.uniform()
        self._children: set[Widths] = set()  # of this parent
        self._ended = 0

    def ask(self, n: int = 1) -> list[Widths]:
        """Return the first parent, then children of the parent of the day."""
        return [self._history.mark(self._propose()) for _ in range(n)]

    def tell(self, trials: Sequence[Trial]) -> None:
        """Count what has ended of the generation; its best member follows the parent when it is complete."""
        self._history.tell(trials)
        self._ended += len(self._children & {trial.widths for trial in trials})
        if self._ended >= self._offspring and self._history.best is not None:
            self._parent, self._children, self._ended = self._history.best, set(), 0

    def exchange(self, proposed: Widths, handed_out: Widths) -> None:
        """Let what is evaluated in place of a child be one."""
        self._history.exchange(proposed, handed_out)
        if proposed in self._children:
            self._children = (self._children - {proposed}) | {handed_out}

    def _propose(self) -> Widths:
        if self._parent not in self._history.seen:
            return self._parent
        while True:
            for _ in range(TRIES):
                child = self._switched(self._parent)
                if child not in self._history.seen:
                    self._children.add(child)
                    return child
            if self._history.best in (None, self._parent):
                return near_best(self._domain, self._history, self._rng)
            self._parent, self._children, self._ended = self._history.best, set(), 0

    def _switched(self, parent: Widths) -> Widths:
        row = np.array(parent)
        most = self._switches + 1
        for _ in range(min(self._rng.integers(1, most), self._rng.integers(1, most))):
            self._switch(row)
        return as_widths(self._domain.repair(row[None])[0])

    def _switch(self, row: IntArray) -> None:
        """One group a level narrower, in place, and the first of the others that fits wider."""
        groups = self._domain.space.groups
        can = [i for i, group in enumerate(groups) if row[i] > group.choices[0]]
        if not can:
            return
        narrower = int(self._rng.choice(can))
        group, before = groups[narrower], int(row[narrower])
        aim = before - group.width / self._levels
        row[narrower] = max(choice for choice in group.choices if choice <= aim or choice == group.choices[0])
        for wider in self._rng.permutation(len(groups)):
            if wider != narrower and self._widen(row, int(wider)):
                return
        row[narrower] = before

    def _widen(self, row: IntArray, wider: int) -> bool:
        """Give a group the largest width that the budget allows; False where that is none but its own."""
        larger = [choice for choice in self._domain.space.groups[wider].choices if choice > row[wider]]
        if not larger:
            return False
        rows = np.repeat(row[None], len(larger), axis=0)
        rows[:, wider] = larger
        inside = self._domain.budget.usage(rows) <= 1.0
        if not inside.any():
            return False
        row[wider] = max(choice for choice, fits in zip(larger, inside, strict=True) if fits)
        return True
