"""Inherited weights, by default with adaptive batch norm: Li et al., EagleEye, ECCV 2020, section 3.3."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from autoprune.errors import ConfigError
from autoprune.evaluators.base import Evaluator, check_counts, check_flags
from autoprune.evaluators.candidates import CandidateFactory
from autoprune.evaluators.scored_heirs import Form, ScoredHeirs
from autoprune.inherit.bn_recalibration import CALIBRATION_BATCHES
from autoprune.space.groups import Widths
from autoprune.tasks.score import Score
from autoprune.training.watch import Watch


@final
class Inherited(Evaluator):
    """Slice the base network, apply the job's inheritance on training inputs, score it; seconds per candidate.

    What is scored are copies: no form changes what is trained, returned or exported.

    Args:
        factory: what candidates are made from.
        calibration_batches: the setting `batches` of bn_recalibration, where the job's `inherit` does not give it; the
            same batches for all candidates.
        validation_limit: score on this many validation examples (None: all of them).
        keep_examples: the ledger keeps which validation examples were right, where the task can tell (1.7 kB of text
            for 10 000 of them).
        form: "plain": networks run as they are. "fast": in the fastest form that gives the same outputs to rounding
            (see `scoring_form`), so that a score that counts right answers may move by an example. It is measured once,
            when the run begins, and kept in the run, so that a resumed run and all workers use the same.
        paired: the standard error of a score is that of its difference to the base network's on the same examples; the
            score model takes it as known noise. Costs a pass of the base network on each worker.

    Raises:
        ConfigError: a number out of range, another form, or `paired` where a score is no mean over examples.
    """

    def __init__(
        self,
        factory: CandidateFactory,
        *,
        calibration_batches: int = CALIBRATION_BATCHES,
        validation_limit: int | None = None,
        keep_examples: bool = False,
        form: Form = "plain",
        paired: bool = False,
    ) -> None:
        check_counts("inherited", least=0, calibration_batches=calibration_batches)
        check_counts("inherited", least=1, validation_limit=validation_limit)
        check_flags("inherited", paired=paired, keep_examples=keep_examples)
        self._factory = factory.calibrated(calibration_batches)
        self._limit, self._keep = validation_limit, keep_examples
        self._heirs = ScoredHeirs(self._factory, form=form, evaluator="inherited")
        if paired and (self._heirs.measure is None or not self._heirs.measure.is_mean):
            raise ConfigError(
                "evaluator 'inherited': paired compares answers to single examples, and this task's score is no mean "
                "over examples; leave paired out"
            )
        self._paired = paired

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

    def evaluate(self, widths: Widths, *, seed: int, full: bool = False, watch: Watch | None = None) -> Score:
        """See `Evaluator.evaluate`; the seed changes nothing, as nothing is random."""
        network, stop = self._heirs.network(widths, full=full), None if full else self._limit
        task = self._heirs.task
        if task is None:
            return self._factory.task.scored(network, limit=stop, examples=self._keep)
        values = self._heirs.values(network, widths, stop=stop)
        if full or not self._paired:
            return task.score_of(values, examples=self._keep)
        return self._heirs.paired(values, stop, examples=self._keep)
