"""ABCPruner: Lin et al. 2020, https://arxiv.org/abs/2001.08565, section 3.3: an artificial bee colony over ratios.

Food sources are width vectors. In each cycle an employed bee visits every source and looks beside it, at the source
plus a random share of its difference to another source; then as many onlookers do the same at sources drawn by fitness;
what is better replaces its source. A source that did not improve `limit` times is left by a scout for a random one.
Ten sources, a limit of 5 and two ratios changed per look are the authors' settings.

Departures: proposals are repaired onto the budget (the paper caps every ratio instead, at 0.9 or less); fitness is the
score scaled to 0..1 over the sources, as scores may be negative; a bee does not wait for the others, so several looks
at one source may be pending; what others proposed fills empty sources, or replaces the worst one where it is better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from autoprune.controllers.base import Controller, Trial
from autoprune.controllers.parts.history import History
from autoprune.controllers.parts.proposals import TRIES, unseen_member, unseen_variation
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import ConfigError
from autoprune.space.groups import FloatArray, Widths


@dataclass(eq=False)
class _Source:
    widths: Widths
    score: float
    failures: int = 0


@final
class BeeColony(Controller):
    """Employed bees, onlookers and scouts around a few good width vectors.

    Args:
        domain: the space under its budget.
        seed: of every random choice.
        sources: number of food sources.
        limit: looks without improvement after which a source is left.
        changed: ratios that a look changes.

    Raises:
        ConfigError: a setting is out of its range.
    """

    def __init__(
        self, domain: BudgetedSpace, *, seed: int, sources: int = 10, limit: int = 5, changed: int = 2
    ) -> None:
        for name, value, least in (("sources", sources, 2), ("limit", limit, 1), ("changed", changed, 1)):
            if value < least:
                raise ConfigError(f"abc: {name} must be at least {least}, got {value}")
        self._domain = domain
        self._rng = np.random.default_rng(seed)
        self._history = History(domain)
        self._number, self._limit, self._changed = sources, limit, changed
        self._sources: list[_Source] = []
        self._looks: dict[Widths, _Source] = {}  # pending looks and where each began
        self._turn = 0

    def ask(self, n: int = 1) -> list[Widths]:
        """Return `n` random members while sources are missing, then looks of employed bees and onlookers in turn."""
        return [self._history.mark(self._propose()) for _ in range(n)]

    def tell(self, trials: Sequence[Trial]) -> None:
        """Replace sources by what is better, and leave those that have not improved for long."""
        scored = self._history.tell(trials)
        for trial, score in scored:
            self._learn(trial.widths, score)
        for trial in trials:
            self._looks.pop(trial.widths, None)

    def exchange(self, proposed: Widths, handed_out: Widths) -> None:
        """Let what is evaluated in place of a look be a look at the same source."""
        self._history.exchange(proposed, handed_out)
        if (source := self._looks.pop(proposed, None)) is not None:
            self._looks[handed_out] = source

    def _propose(self) -> Widths:
        missing = self._number - len(self._sources)
        scouting = len(self._history.pending) - len(self._looks)
        if len(self._sources) < 2 or scouting < missing:
            return unseen_member(self._domain, self._history.seen, self._rng)
        source = self._visited()
        widths = self._look(source)
        self._looks[widths] = source
        return widths

    def _visited(self) -> _Source:
        """Every source in turn by its employed bee, then as many by onlookers, who prefer fit ones."""
        self._turn = (self._turn + 1) % (2 * len(self._sources))
        if self._turn < len(self._sources):
            return self._sources[self._turn]
        scores = np.array([source.score for source in self._sources])
        range_ = float(np.ptp(scores))
        fitness = 0.9 * (scores - scores.min()) / (range_ or 1.0) + 0.1
        return self._sources[int(self._rng.choice(len(scores), p=fitness / fitness.sum()))]

    def _look(self, source: _Source) -> Widths:
        """An unseen member beside a source: x_j + R (x_j - y_j) in a few groups j, y another source, R within ±1."""
        others = [other for other in self._sources if other is not source]
        x = np.array(source.widths, dtype=np.float64)
        looks = np.empty((TRIES, len(x)))
        for look in looks:
            y = np.array(others[int(self._rng.integers(len(others)))].widths, dtype=np.float64)
            where = self._rng.integers(len(x), size=self._changed)
            look[:] = x
            look[where] += self._rng.uniform(-1, 1, self._changed) * (x - y)[where]
        inside: FloatArray = np.clip(looks, self._domain.space.smallest, self._domain.space.full)
        return unseen_variation(self._domain, inside, self._history.seen, self._rng)

    def _learn(self, widths: Widths, score: float) -> None:
        source = self._looks.pop(widths, None)
        settled = any(widths == other.widths for other in self._sources)  # told again
        if source is None or source not in self._sources:
            if not settled:
                self._settle(_Source(widths, score))
        elif score > source.score and not settled:
            source.widths, source.score, source.failures = widths, score, 0
        else:
            source.failures += 1
            if source.failures >= self._limit:
                self._sources.remove(source)  # a scout looks for another one

    def _settle(self, found: _Source) -> None:
        if not self._domain.feasible(np.array([found.widths]))[0]:
            return
        if len(self._sources) < self._number:
            self._sources.append(found)
            return
        worst = min(self._sources, key=lambda source: source.score)
        if found.score > worst.score:
            self._sources[self._sources.index(worst)] = found
