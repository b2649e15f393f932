"""Inherited weights with adaptive batch norm: Li et al., EagleEye, ECCV 2020, section 3.3."""

from __future__ import annotations

from typing import final

from torch import nn

from autoprune.evaluators.base import Evaluator, Workbench, check_counts
from autoprune.inherit.bn_recalibration import CALIBRATION_BATCHES, recalibrate_batch_norm
from autoprune.space.groups import Widths
from autoprune.training.watch import Watch


@final
class Inherited(Evaluator):
    """Slice the base network, recalibrate its batch norms on training inputs, score it; seconds per candidate.

    Args:
        bench: what candidates are made from.
        calibration_batches: training batches whose statistics replace the inherited ones; the same for all candidates.
        validation_limit: score on this many validation examples (None: all of them).
    """

    def __init__(
        self, bench: Workbench, *, calibration_batches: int = CALIBRATION_BATCHES, validation_limit: int | None = None
    ) -> None:
        check_counts("inherited", least=0, calibration_batches=calibration_batches)
        check_counts("inherited", least=1, validation_limit=validation_limit)
        self._bench = bench
        self._limit = validation_limit
        self._inputs = bench.task.calibration_inputs(calibration_batches, seed=0)

    def evaluate(self, widths: Widths, *, seed: int, full: bool = False, watch: Watch | None = None) -> float:
        """See `Evaluator.evaluate`; the seed changes nothing, as nothing is random."""
        return self._bench.task.score(self.network(widths), limit=None if full else self._limit)

    def network(self, widths: Widths) -> nn.Module:
        """The network that is scored."""
        network = self._bench.candidate(widths)
        recalibrate_batch_norm(network, self._inputs, device=self._bench.task.device)
        return network
