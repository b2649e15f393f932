"""Inherited weights, by default with adaptive batch norm: Li et al., EagleEye, ECCV 2020, section 3.3."""

from __future__ import annotations

from typing import final

from autoprune.evaluators.base import Evaluator, check_counts
from autoprune.evaluators.candidates import CandidateFactory
from autoprune.inherit.bn_recalibration import CALIBRATION_BATCHES
from autoprune.space.groups import Widths
from autoprune.tasks.score import Score
from autoprune.training.watch import Watch


@final
class Inherited(Evaluator):
    """Slice the base network, apply the job's inheritance on training inputs, score it; seconds per candidate.

    Args:
        factory: what candidates are made from.
        calibration_batches: the setting `batches` of bn_recalibration, where the job's `inherit` does not give it; the
            same batches for all candidates.
        validation_limit: score on this many validation examples (None: all of them).
        keep_examples: the ledger keeps which validation examples were right, where the task can tell (1.7 kB of text
            for 10 000 of them).
    """

    def __init__(
        self,
        factory: CandidateFactory,
        *,
        calibration_batches: int = CALIBRATION_BATCHES,
        validation_limit: int | None = None,
        keep_examples: bool = False,
    ) -> None:
        check_counts("inherited", least=0, calibration_batches=calibration_batches)
        check_counts("inherited", least=1, validation_limit=validation_limit)
        self._factory = factory.calibrated(calibration_batches)
        self._limit, self._keep = validation_limit, keep_examples
        self._factory.heirs("search")

    def evaluate(self, widths: Widths, *, seed: int, full: bool = False, watch: Watch | None = None) -> Score:
        """See `Evaluator.evaluate`; the seed changes nothing, as nothing is random."""
        network = self._factory.heirs("final" if full else "search")(widths)
        return self._factory.task.scored(network, limit=None if full else self._limit, examples=self._keep)
