"""Early stopping of evaluations that report on the way: asynchronous successive halving.

Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020, https://arxiv.org/abs/1810.05934. Rungs
lie at shares of an evaluation that grow by a factor eta. Whoever reaches a rung goes on if its score is among the best
1 / eta of the scores there so far; nobody waits for others. Evaluations are stopped for good, as Ray Tune's scheduler
does, rather than paused: with one after the other there is nobody to take a paused one up again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import final

import numpy as np

from autoprune.config.stopping import EarlyStopping
from autoprune.space.groups import Widths
from autoprune.tasks.score import as_score
from autoprune.training.scores import ANY, checked_score
from autoprune.training.watch import State, Stopped, Watch

REDUCTION = 3
"""The best third goes on at 11 % and at 33 % of an evaluation; Li et al. use 3 or 4."""

GRACE = 1 / REDUCTION**2
"""Share of an evaluation before which nobody is stopped."""

BRACKETS: dict[EarlyStopping, int] = {"none": 0, "asha": 1, "hyperband": 3}
"""Brackets begin to stop one rung later each: asynchronous HyperBand, Li et al. 2020, section 3.3."""

_ROUNDING = 1e-9


class Stopper(ABC):
    """Decides at rungs whether an evaluation goes on.

    Attributes:
        own_scales: scores of each rung are of another scale; then baselines report there, too, and always go on.
    """

    own_scales: bool = False

    @abstractmethod
    def rung(self, seed: int, share: float) -> float | None:
        """The rung on which an evaluation stands after a share of it, None for none."""

    @abstractmethod
    def goes_on(self, seed: int, rung: float, score: float, widths: Widths) -> bool:
        """Note the score of an evaluation at a rung; whether it is among the best there so far."""


@final
class SuccessiveHalving(Stopper):
    """What was scored at each rung so far, and who goes on.

    Args:
        brackets: an evaluation belongs to one of them by its seed, to a later one less often.
    """

    def __init__(self, brackets: int = 1) -> None:
        rungs = [GRACE * REDUCTION**k for k in range(brackets + 1) if GRACE * REDUCTION**k < 1 - _ROUNDING]
        self._brackets = [tuple(rungs[skipped:]) for skipped in range(brackets)]
        sizes = np.array([len(bracket) for bracket in self._brackets], dtype=np.float64)
        self._odds = np.exp(sizes) / np.exp(sizes).sum()  # as Ray Tune draws them
        self._scores: dict[tuple[int, float], list[float]] = {}

    def rung(self, seed: int, share: float) -> float | None:
        """The highest rung that an evaluation has reached after a share of it, None before the first."""
        reached = [rung for rung in self._brackets[self._bracket(seed)] if rung <= share + _ROUNDING]
        return reached[-1] if reached else None

    def goes_on(self, seed: int, rung: float, score: float, widths: Widths = ()) -> bool:
        """See `Stopper.goes_on`."""
        earlier = self._scores.setdefault((self._bracket(seed), rung), [])
        enough = not earlier or score >= float(np.percentile(earlier, 100 * (1 - 1 / REDUCTION)))
        earlier.append(score)
        return enough

    def learn(self, seed: int, partial: Sequence[tuple[float, float]]) -> None:
        """Take in the (share, score) pairs of an evaluation that ended before, as of a run that is resumed."""
        for share, score in partial:
            rung = self.rung(seed, share)
            if rung is not None:
                self.goes_on(seed, rung, score)

    def _bracket(self, seed: int) -> int:
        if len(self._brackets) == 1:
            return 0
        return int(np.random.default_rng(seed).choice(len(self._brackets), p=self._odds))


def make_stopper(name: EarlyStopping) -> SuccessiveHalving | None:
    """A new stopper that has seen nothing; None where nothing is to be stopped."""
    return SuccessiveHalving(BRACKETS[name]) if BRACKETS[name] else None


@final
class StoppingWatch(Watch):
    """Asks a stopper at every rung whether one evaluation goes on; scores are taken only there.

    Args:
        stopper: of the search.
        seed: of the evaluation.
        widths: of the candidate.
        baseline: it goes on in any case.

    Attributes:
        partial: (share, score) at the rungs that it has reached.
        stopped: whether it was told to stop.
    """

    def __init__(self, stopper: Stopper, seed: int, widths: Widths = (), *, baseline: bool = False) -> None:
        self._stopper, self._seed, self._widths, self._baseline = stopper, seed, widths, baseline
        self._rung: float | None = None
        self.partial: list[tuple[float, float]] = []
        self.stopped = False

    @property
    def rungs(self) -> bool:
        """See `Trial.rungs`."""
        return self._stopper.own_scales

    def restore(self) -> State | None:
        """Nothing: this process keeps no states."""
        return None

    def epoch(self, done: int, total: int, score: Callable[[], float] | None, state: Callable[[], State]) -> None:
        """See `Watch.epoch`; after the last step there is nothing to decide."""
        if self.stopped:  # the evaluator has caught the signal and went on
            raise Stopped
        share = done / total
        rung = self._stopper.rung(self._seed, share)
        if score is None or done >= total or rung is None or rung == self._rung:
            return
        self._rung = rung
        value = checked_score(as_score(score()).value, ANY, what="a score on the way")
        self.partial.append((share, value))
        self.stopped = not self._stopper.goes_on(self._seed, rung, value, self._widths) and not self._baseline
        if self.stopped:
            raise Stopped
