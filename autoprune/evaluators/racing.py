"""Racing: a candidate that is clearly worse than the best ones so far is not scored to the end.

Maron and Moore 1993, Hoeffding Races (Advances in Neural Information Processing Systems 6): models are scored on more
and more examples, and those whose score lies below the best one's, with confidence, are dropped. Here the bounds are
paired ("blocking", as in Moore and Lee 1994 and F-Race, Birattari et al. 2002): candidate and incumbents have answered
the same examples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np

from autoprune.errors import ConfigError
from autoprune.evaluators.base import MOST_FOLLOWED, Evaluator, check_counts
from autoprune.evaluators.candidates import CandidateFactory
from autoprune.evaluators.paired import error_of_difference, probability_as_low
from autoprune.evaluators.scored_heirs import Form, ScoredHeirs
from autoprune.inherit.bn_recalibration import CALIBRATION_BATCHES
from autoprune.measures.base import Values
from autoprune.space.groups import Widths
from autoprune.tasks.score import Score
from autoprune.training.watch import Watch


@final
class Racing(Evaluator):
    """As `inherited`, on blocks of examples that grow; who is below the incumbents stops there.

    After each block the candidate is tested against each of the incumbents, the best candidates when it was proposed,
    on the examples that all have answered: the sign test where answers are right or wrong, Student's t for numbers. It
    stops where it is below every one of them at level (1 - confidence) / number of tests, so that a candidate that does
    as well as one of them on all validation examples is stopped with a probability of at most 1 - confidence
    (Bonferroni over the blocks; of numbers as far as their mean is normal). One incumbent alone is the luckiest of all
    on these examples, and one that only answers new examples as well is stopped more often beside it. The score of
    who stops is that of the incumbent that it is nearest to, less their difference on these examples. All scores come
    with the standard error of their difference to the base network's, of who stops with that of the estimate, too; the
    score model takes it as known noise.

    Args:
        factory: what candidates are made from.
        first: examples of the first block; each test is after `growth` times as many as the one before.
        growth: see `first`.
        confidence: that no candidate is stopped which does as well as an incumbent on all validation examples.
        incumbents: how many of the best a candidate has to be below; until there are so many, nobody stops.
        calibration_batches: see `Inherited`.
        validation_limit: see `Inherited`; blocks grow up to it.
        form: see `Inherited`.

    Raises:
        ConfigError: a setting out of range; or a task whose score is no mean over examples.
    """

    def __init__(
        self,
        factory: CandidateFactory,
        *,
        first: int = 128,
        growth: float = 2.0,
        confidence: float = 0.95,
        incumbents: int = 3,
        calibration_batches: int = CALIBRATION_BATCHES,
        validation_limit: int | None = None,
        form: Form = "plain",
    ) -> None:
        check_counts("racing", least=1, first=first, incumbents=incumbents, validation_limit=validation_limit)
        check_counts("racing", least=0, calibration_batches=calibration_batches)
        if incumbents > MOST_FOLLOWED:
            raise ConfigError(f"evaluator 'racing': incumbents must be at most {MOST_FOLLOWED}, got {incumbents}")
        _check_between("growth", growth, 1.0, 1000.0)
        _check_between("confidence", confidence, 0.0, 1.0)
        self._heirs = ScoredHeirs(factory.calibrated(calibration_batches), form=form, evaluator="racing")
        if self._heirs.measure is None or not self._heirs.measure.is_mean:
            raise ConfigError(
                "evaluator 'racing' compares answers to single examples, and this task's score is no mean over "
                "examples; choose the evaluator inherited, or a task with a measure that is one"
            )
        self.follows = incumbents
        self._first, self._growth, self._level, self._limit = first, growth, 1.0 - confidence, validation_limit

    @classmethod
    def prepares(cls, settings: Mapping[str, Any]) -> bool:
        """See `Evaluator.prepares`: the form, where it is measured."""
        return bool(settings.get("form", "plain") != "plain")

    def prepare(self, directory: Path, *, seed: int) -> None:
        """See `Evaluator.prepare`."""
        self._heirs.prepare(directory)

    def load(self, directory: Path) -> None:
        """See `Evaluator.load`."""
        self._heirs.load(directory)

    def evaluate(
        self,
        widths: Widths,
        *,
        seed: int,
        full: bool = False,
        watch: Watch | None = None,
        incumbents: Sequence[Widths] = (),
    ) -> Score:
        """See `Evaluator.evaluate`; the seed changes nothing, as nothing is random."""
        heirs = self._heirs
        network = heirs.network(widths, full=full)
        assert heirs.task is not None
        if full:
            return heirs.task.score_of(heirs.values(network, widths))
        best = [rival for rival in incumbents if rival != widths]
        rivals = [heirs.turned(heirs.values_of(rival, self._limit)) for rival in best]
        whole = len(heirs.values_of_base(self._limit))
        tests = blocks(whole, self._first, self._growth) if len(rivals) >= self.follows else ()
        values = np.empty(0)
        for stop in (*tests, whole):
            more = heirs.values(network, widths, start=len(values), stop=stop)
            values = np.concatenate([values, more]) if len(values) else more
            ours = heirs.turned(values)
            if stop < whole and self._is_below(ours, rivals, self._level / len(tests)):
                return self._estimated(ours, rivals)
        heirs.remember(widths, self._limit, values)
        return heirs.paired(values, self._limit)

    @staticmethod
    def _is_below(ours: Values, rivals: Sequence[Values], level: float) -> bool:
        return all(probability_as_low(ours, rival[: len(ours)]) <= level for rival in rivals)

    def _estimated(self, ours: Values, rivals: Sequence[Values]) -> Score:
        """The score on all examples, by that of the rival whose answers to the first ones are most alike."""
        n = len(ours)
        errors = [error_of_difference(ours, rival[:n]) for rival in rivals]
        nearest = rivals[int(np.argmin(errors))]
        unit = 100.0 if ours.dtype.kind == "b" else 1.0
        value = unit * float(nearest.mean() + ours.mean() - nearest[:n].mean())
        error = math.hypot(min(errors), self._heirs.error_beside_base(nearest, self._limit))
        assert self._heirs.measure is not None
        return Score(float(np.clip(value, *self._heirs.measure.score_range)), error, paired=True)


def blocks(examples: int, first: int, growth: float) -> tuple[int, ...]:
    """After how many examples a candidate is tested: each `growth` times as many, as long as that leaves some."""
    tests, size = list[int](), float(first)
    while size < examples:
        tests.append(int(size))
        size = max(size * growth, size + 1)
    return tuple(tests)


def _check_between(name: str, value: object, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low < value < high:
        raise ConfigError(f"evaluator 'racing': {name} must be above {low:g} and below {high:g}, got {value!r}")
