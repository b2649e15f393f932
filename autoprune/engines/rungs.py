"""Who goes on at the rungs of an evaluator, whose steps have scales of their own.

As in asynchronous successive halving (Li et al. 2020, see `stopping.py`) whoever reaches a rung goes on if it is among
the best of those before it, and nobody waits. Those before it are the latest ones, where Li et al. take all. As a
search proposes ever better candidates, more than the share asked for would be among the best even so: the more have
gone on beyond it, the higher the bar for the next. Ranked is by the final score that the score model expects, of each
from its widths and its score at this rung, not from what it scored later; before enough candidates have gone on, by the
score alone. Everything follows from the trials told and those under way, so a run that is resumed decides as it would
have.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

import numpy as np

from autoprune.controllers.base import Trial, TrialState
from autoprune.controllers.parts.proposals import teachable
from autoprune.controllers.parts.rungs import JoinedScores, score_table
from autoprune.engines.stopping import Stopper
from autoprune.evaluators.rungs import Rungs
from autoprune.score_model.kernel import Kernel
from autoprune.score_model.posterior import ScoreModel
from autoprune.score_model.rungs import RungScores
from autoprune.space.groups import FloatArray, Widths
from autoprune.trials.session import SearchSession

LEARNED = 8
"""Candidates that must have gone on from a rung before the model ranks there: with fewer, the standard error of a
correlation, 1 / sqrt(n - 3), is half as large as the largest one possible."""

_BEST = 4
"""Of those compared with so many are expected to go on; over as many comparisons the bar makes up for those that went
on beyond the share. A search proposes ever better candidates: compared with all before it, nearly each would go on."""

_LEAST = 1e-6
"""Of smaller shares whoever is not the best so far is stopped, too."""

_GROWTH = 1.3
"""The kernel's parameters are fitted again when there are 30 % more scores."""


@final
@dataclass
class _UnderWay:
    widths: Widths
    scores: dict[int, float] = field(default_factory=dict)
    goes_on: dict[int, bool] = field(default_factory=dict)


@final
class RungRule(Stopper):
    """Decides at the rungs of one search.

    Args:
        rungs: of the evaluator.
        session: of the search; only read.
    """

    own_scales = True

    def __init__(self, rungs: Rungs, session: SearchSession) -> None:
        self._rungs, self._session = rungs, session
        self._under_way: dict[int, _UnderWay] = {}
        self._model = ScoreModel(session.domain)
        self._kernels: dict[int, Kernel] = {}
        self._told, self._fitted_to = 0, -1
        self._ended: list[Trial] = []
        self._without: dict[Widths, float] = {}

    def rung(self, seed: int, share: float) -> float | None:
        """See `Stopper.rung`."""
        place = self._rungs.place(share)
        return None if place is None else self._rungs.shares[place]

    def goes_on(self, seed: int, rung: float, score: float, widths: Widths) -> bool:
        """See `Stopper.goes_on`; asked again of the same evaluation, the answer is the same."""
        place = self._rungs.place(rung)
        assert place is not None
        self._take_up()
        own = self._under_way.setdefault(seed, _UnderWay(widths))
        if place not in own.goes_on:
            own.scores[place] = score
            own.goes_on[place] = self._decide(seed, place)
        return own.goes_on[place]

    def _decide(self, seed: int, place: int) -> bool:
        values = self._ranked_by(place)
        row = len(self._ended) + list(self._under_way).index(seed)
        there = np.isfinite(values)
        there[row] = False
        if not there.any():
            return True
        keep = self._rungs.keep[place]
        compared = math.ceil(_BEST / max(keep, _LEAST))
        share = keep + self._left_over(place) / compared
        if share >= 1:  # it may be worse than all it is compared with
            return True
        return bool(values[row] >= np.percentile(values[there][-compared:], 100 * (1 - max(share, 0.0))))

    def _left_over(self, place: int) -> float:
        """How many candidates have not gone on that could have; below 0 where more have. Baselines do not count."""
        at_rung = [t for t in self._ended if t.origin == "controller" and len(t.partial) > place]
        went_on = [t.state is TrialState.COMPLETE or len(t.partial) > place + 1 for t in at_rung]
        went_on += [c.goes_on[place] for c in self._under_way.values() if place in c.goes_on]
        return self._rungs.keep[place] * len(went_on) - sum(went_on)

    def _take_up(self) -> None:
        """What was told since."""
        new = self._session.trials[self._told :]
        self._told += len(new)
        for trial in new:
            self._under_way.pop(trial.seed, None)
            if teachable([trial], at_rungs=True):
                self._ended.append(trial)

    def _ranked_by(self, place: int) -> FloatArray:
        """By what candidates are ranked at a rung: those that have ended, then those under way."""
        table = self._table()
        scores = RungScores(table)
        went_on = int((np.isfinite(table[:, place]) & (scores.reached > place)).sum())
        if scores.top <= place or went_on < LEARNED:
            return table[:, place]
        return scores.expected(place, self._from_widths())

    def _table(self) -> FloatArray:
        ended = score_table(self._ended, self._rungs.shares)
        table = np.full((len(self._ended) + len(self._under_way), ended.shape[1]), np.nan)
        table[: len(self._ended)] = ended
        for row, candidate in enumerate(self._under_way.values(), start=len(self._ended)):
            table[row, list(candidate.scores)] = list(candidate.scores.values())
        return table

    def _from_widths(self) -> FloatArray:
        """What the model expects of each without any score of its own."""
        if self._fitted_to != self._told:
            _fit(self._model, self._ended, self._kernel())
            self._without = self._model.left_out()
            self._fitted_to = self._told
        widths = [*(t.widths for t in self._ended), *(c.widths for c in self._under_way.values())]
        return np.array(
            [
                self._without.get(one, mean)
                for one, mean in zip(widths, self._model.mean(np.array(widths)).tolist(), strict=True)
            ]
        )

    def _kernel(self) -> Kernel:
        """That of the first scores, of ever more of them; the same wherever a search was interrupted."""
        n = LEARNED
        while int(n * _GROWTH) <= len(self._ended):
            n = int(n * _GROWTH)
        if n not in self._kernels:
            model = ScoreModel(self._session.domain)
            _fit(model, self._ended[:n], None)
            self._kernels[n] = model.kernel
        return self._kernels[n]


def _fit(model: ScoreModel, trials: Sequence[Trial], kernel: Kernel | None) -> None:
    joined = JoinedScores.of(trials)
    model.fit(joined.widths, joined.scores, joined.scale, known=joined.known, bias=joined.bias, kernel=kernel)
