"""Networks of inherited weights and their values on validation examples: what the evaluators of them share."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeAlias, final, get_args

import torch
from torch import nn

from autoprune.errors import ConfigError, is_interrupted, is_out_of_memory, suggest
from autoprune.evaluators.candidates import CandidateFactory
from autoprune.evaluators.paired import error_of_difference
from autoprune.evaluators.resident import ResidentScorer, scores_by_measure
from autoprune.evaluators.scoring_form import PLAIN, ScoringForm, calibrates_faster_last, fastest_form
from autoprune.measures.base import Measure, Values
from autoprune.space.copying import copy_network
from autoprune.space.groups import Widths
from autoprune.tasks.measured import MeasuredTask
from autoprune.tasks.score import Score
from autoprune.tasks.scoring import turned

Form: TypeAlias = Literal["plain", "fast"]

_TRIED = 256
"""Examples on which forms are compared: as much work as a candidate or two."""

_REMEMBERED = 16
"""Networks whose values are kept; the best so far are asked for again and again."""


@final
class ScoredHeirs:
    """Cuts networks, lets them inherit, and runs them on validation examples in one form.

    Args:
        factory: what candidates are made from.
        form: "plain", or "fast": measured in `prepare`, taken in by `load`; plain until then.
        evaluator: for messages.

    Raises:
        ConfigError: another form.
    """

    def __init__(self, factory: CandidateFactory, *, form: Form, evaluator: str) -> None:
        if form not in get_args(Form):
            close = suggest(str(form), get_args(Form))
            raise ConfigError(f"evaluator {evaluator!r}: form must be plain or fast, got {form!r}.{close}")
        self._factory, self._fast = factory, form == "fast"
        self.task: MeasuredTask | None = factory.task if scores_by_measure(factory.task) else None
        self._remembered: OrderedDict[tuple[Widths, int | None], Values] = OrderedDict()
        self._base: dict[int | None, Values] = {}
        self._factory.heirs("search")
        self._use(PLAIN)

    @property
    def measure(self) -> Measure | None:
        """What the values count; None where the task scores in another way."""
        return None if self.task is None else self.task.measure

    def prepare(self, directory: Path) -> None:
        """Measure which form is the fastest, on a network of half width, and keep it there."""
        if not self._fast:
            return
        if self.task is None:  # functions of the user's own run networks as they like
            PLAIN.write(directory)
            return
        network = self._factory.heirs("search")(self._factory.space.uniform(0.5)).eval()
        first = next(iter(self.task.scored_batches("validation", _TRIED)))
        batch = first.to(self.task.device)
        form = fastest_form(network, batch)
        calibration = next(iter(self.task.calibration_batches(1, seed=0)), batch)  # of the size that will be read
        replace(form, calibrated_last=calibrates_faster_last(network, calibration)).write(directory)

    def load(self, directory: Path) -> None:
        """Take the form that is kept there."""
        if self._fast:
            self._use(ScoringForm.read(directory))

    def network(self, widths: Widths, *, full: bool = False) -> nn.Module:
        """The network of these widths, on the device; `full`: as those inherit that are compared at the end."""
        if full or not self._form.calibrated_last:
            return self._factory.heirs("final" if full else "search")(widths)
        try:
            network = self._factory.heirs("search", channels_last=True)(widths)
            layout = torch.channels_last if self._form.channels_last else torch.contiguous_format
            return network.to(memory_format=layout)  # type: ignore[call-overload, no-any-return]  # torch's stubs lack it
        except Exception as error:
            if is_interrupted(error) or is_out_of_memory(error):
                raise
        return self._factory.heirs("search")(widths)

    def values(self, network: nn.Module, widths: Widths, *, start: int = 0, stop: int | None = None) -> Values:
        """See `ResidentScorer.values`; the task scores by a measure."""
        assert self._scorer is not None
        return self._scorer.values(network, widths, start=start, stop=stop)

    def values_of_base(self, stop: int | None) -> Values:
        """Of the base network, on the first examples; computed once."""
        if stop not in self._base:
            network, space = copy_network(self._factory.model).to(self._factory.task.device), self._factory.space
            self._base[stop] = self.values(network, space.full, stop=stop)
        return self._base[stop]

    def values_of(self, widths: Widths, stop: int | None) -> Values:
        """Of a candidate that was scored before, maybe by another worker; computed again where it is not remembered."""
        key = widths, stop
        if key in self._remembered:
            self._remembered.move_to_end(key)
        else:
            self.remember(widths, stop, self.values(self.network(widths), widths, stop=stop))
        return self._remembered[key]

    def remember(self, widths: Widths, stop: int | None, values: Values) -> None:
        """Keep the values of a candidate on the first examples for those that are compared with it."""
        self._remembered[(widths, stop)] = values
        while len(self._remembered) > _REMEMBERED:
            self._remembered.popitem(last=False)

    def paired(self, values: Values, stop: int | None, *, examples: bool = False) -> Score:
        """The score of values on the first examples; its error is that of the difference to the base network.

        One reference for all: errors of differences to other candidates would leave out what those are off by.

        Args:
            values: of a candidate, in the sign of the measure.
            stop: on so many examples; None: on all.
            examples: keep the values.
        """
        assert self.task is not None
        error = self.error_beside_base(self.turned(values), stop)
        return replace(self.task.score_of(values, examples=examples), standard_error=error, paired=True)

    def error_beside_base(self, ours: Values, stop: int | None) -> float:
        """Standard error of the difference to the base network; of values where higher is better."""
        return error_of_difference(ours, self.turned(self.values_of_base(stop)))

    def turned(self, values: Values) -> Values:
        """The same, higher is better."""
        assert self.task is not None
        return turned(self.task.measure, values)

    def _use(self, form: ScoringForm) -> None:
        self._form = form
        self._scorer = None if self.task is None else ResidentScorer(self.task, self._factory.space, form)
