"""Second moments of what consumers read in a network, in one streaming pass over batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, final

import torch
from torch import Tensor, nn

from autoprune.data.batch import Batch
from autoprune.errors import EvaluationError
from autoprune.space.copying import copy_network
from autoprune.space.groups import SearchSpace
from autoprune.statistics.calls import WeightCall, WeightCalls
from autoprune.statistics.consumers import Consumer, look_at
from autoprune.statistics.rows import POSITIONS, input_rows
from autoprune.statistics.running import all_finite, evaluating, examples_of

MomentKind: TypeAlias = Literal["patch", "channel"]
"""Of all inputs of an output (channels times kernel), or of channels alone: pixels of the inputs."""

_CPU = torch.device("cpu")


@final
@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Of the inputs u of one consumer, over examples and positions.

    Attributes:
        consumer: whose.
        kind: what u is: (channels, kernel) of one output, channel-major, or channels alone.
        second: (groups, D, D) mean of u uᵀ, float64.
        mean: (groups, D) mean of u, float64.
        count: how many u there were.
        skipped: batches left out because a value was not finite.
    """

    consumer: Consumer
    kind: MomentKind
    second: Tensor
    mean: Tensor
    count: int
    skipped: int = 0

    @property
    def centred(self) -> Tensor:
        """(groups, D, D) covariance of u."""
        return self.second - self.mean[:, :, None] * self.mean[:, None]


def gather_moments(
    model: nn.Module,
    space: SearchSpace,
    batches: Iterable[Any],
    kind: MomentKind = "patch",
    *,
    positions: int = POSITIONS,
    device: torch.device = _CPU,
    only: Callable[[Consumer], bool] | None = None,
) -> dict[str, Moments]:
    """Name of a consumer's weight -> moments of its inputs, all in one pass, in memory that batches do not add to.

    Args:
        model: the dense network in the form of its space; only read: a copy runs, in eval mode.
        space: its space.
        batches: inputs: each a tensor, a tuple of positional or a mapping of keyword inputs.
        kind: "patch" costs (C k²)² numbers for each consumer and is exact; "channel" costs C².
        positions: of each image that are looked at.
        device: where to run.
        only: which consumers; None: all whose inputs can be cut.

    Raises:
        EvaluationError: there are no batches, or none had finite values only.
    """
    batches = list(batches)
    if not batches:
        raise EvaluationError("moments of inputs need calibration data, and there are none: give batches of inputs")
    copied = copy_network(model).to(device).eval()
    cut = {layout.name for layout in space.tensors if any(layout.axes[dim] is not None for dim in layout.reads)}
    wanted = only or (lambda consumer: consumer.name in cut)
    found = [c for c in look_at(copied, space, Batch(batches[0]).to(device).inputs) if wanted(c)]
    gathering = _Gathering(copied, found, kind, positions)
    for inputs in batches:
        gathering.add(Batch(inputs).to(device).inputs)
    return gathering.result()


@final
@dataclass(slots=True, eq=False)
class _Sums:
    consumer: Consumer
    second: Tensor | None = None
    first: Tensor | None = None
    count: int = 0
    rows: list[Tensor] = field(default_factory=list)

    def take(self) -> None:
        """Add the rows of one batch."""
        rows, self.rows = torch.cat(self.rows).double().transpose(0, 1), []
        second, first = rows.transpose(1, 2) @ rows, rows.sum(dim=1)
        self.second = second if self.second is None else self.second.add_(second)
        self.first = first if self.first is None else self.first.add_(first)
        self.count += rows.shape[1]


@final
class _Gathering(WeightCalls):
    def __init__(self, model: nn.Module, found: Sequence[Consumer], kind: MomentKind, positions: int) -> None:
        super().__init__(model, tuple(consumer.name for consumer in found))
        self._model, self._kind, self._positions = model, kind, positions
        self._sums = {consumer.name: _Sums(consumer) for consumer in found}
        self._examples, self._skipped, self._batches = 1, 0, 0

    def called(self, call: WeightCall, run: Callable[[], Tensor]) -> Tensor:
        rows = input_rows(call, self._examples, positions=self._positions, taps=self._kind == "patch")
        self._sums[call.name].rows.append(rows)
        return run()

    def add(self, inputs: Any) -> None:
        """Take a batch into the sums, all of it or nothing."""
        self._examples = examples_of(inputs)
        with evaluating(self._model), self:
            outputs = Batch(inputs).outputs(self._model)
        rows = [sums.rows for sums in self._sums.values()]
        finite = all_finite((inputs, outputs, rows))
        for sums in self._sums.values():
            sums.take() if finite else sums.rows.clear()
        self._batches += finite
        self._skipped += not finite

    def result(self) -> dict[str, Moments]:
        if not self._batches:
            raise EvaluationError(
                f"moments of inputs need finite values, and all {self._skipped} calibration batches have others: "
                f"give it other batches, or check the network's weights"
            )
        return {
            name: Moments(s.consumer, self._kind, s.second / s.count, s.first / s.count, s.count, self._skipped)
            for name, s in self._sums.items()
            if s.second is not None and s.first is not None
        }
