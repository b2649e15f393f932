"""Sums that consumers' outputs go into, and the values on their other side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, final

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from autoprune.data.batch import Batch
from autoprune.statistics.calls import WeightCall, WeightCalls
from autoprune.statistics.consumers import Consumer
from autoprune.statistics.rows import output_rows
from autoprune.statistics.running import evaluating

_ADDS = ("add", "add_", "__add__", "__radd__", "__iadd__")
_SAME = ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout", "contiguous")
"""What passes its input on in eval mode."""


def branches(model: nn.Module, names: tuple[str, ...], inputs: Any) -> Mapping[str, int]:
    """Weight -> the event that makes what the output of its call is added to, if that comes before the call.

    Outputs that go through one batch norm first are among them. Events are the calls of functions of torch in their
    order, as `WeightCalls` sees them, from 0: the same for each batch.

    Args:
        model: runs as it is; a copy of the user's.
        names: of the weights.
        inputs: a small batch; all values are held at once.
    """
    graph = _Graph(model, names)
    with evaluating(model), graph:
        Batch(inputs).outputs(model)
    return dict(graph.found())


@final
@dataclass(frozen=True, slots=True)
class _Event:
    function: str
    reads: tuple[int, ...]
    shapes: tuple[tuple[int, ...], ...]


@final
class _Graph(WeightCalls):
    """Notes for each event which events made what it reads."""

    def __init__(self, model: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__(model, names)
        self._events: list[_Event] = []
        self._made: dict[int, tuple[int, Tensor]] = {}  # the tensor is kept, so that its id stays its own
        self._calls: dict[str, int] = {}

    def called(self, call: WeightCall, run: Callable[[], Tensor]) -> Tensor:
        self._calls[call.name] = len(self._events)
        return self._noted("", (call.inputs,), run())  # type: ignore[no-any-return]

    def other(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[[], Any]
    ) -> Any:
        name = getattr(func, "__name__", "").partition(".")[0]
        scaled = kwargs.get("alpha", 1) != 1
        return self._noted("" if scaled else name, (args, kwargs), run())

    def _noted(self, function: str, given: Any, outputs: Any) -> Any:
        read = [(self._made[id(v)][0], tuple(v.shape)) for v in pytree.tree_leaves(given) if id(v) in self._made]
        makes = any(isinstance(v, Tensor) for v in pytree.tree_leaves(outputs))
        number = len(self._events)
        self._events.append(
            _Event(function, tuple(e for e, _ in read) if makes else (), tuple(shape for _, shape in read))
        )
        for value in pytree.tree_leaves(outputs):
            if isinstance(value, Tensor):
                self._made[id(value)] = number, value
        return outputs

    def found(self) -> Iterator[tuple[str, int]]:
        readers: dict[int, list[int]] = {}
        for number, event in enumerate(self._events):
            for read in event.reads:
                readers.setdefault(read, []).append(number)
        for name, start in self._calls.items():
            at, norms = start, 0
            while len(readers.get(at, ())) == 1 and (reader := readers[at][0]) is not None:
                event = self._events[reader]
                norms += event.function == "batch_norm"
                if event.function in _ADDS:
                    beside = [e for e in event.reads if e != at]
                    if len(beside) == 1 and len(set(event.shapes)) == 1 and beside[0] < start:
                        yield name, beside[0]
                    break
                if event.function not in (*_SAME, "batch_norm") or norms > 1:
                    break
                at = reader


@final
class Beside:
    """Rows of the values on the other side of sums, taken while a network runs.

    Args:
        at: weight -> event, see `branches`.
        consumers: by weight; those that are not among them are left out.
        examples: in the batch.
        positions: weight -> how many of each example.
    """

    def __init__(
        self,
        at: Mapping[str, int],
        consumers: Mapping[str, Consumer],
        examples: int,
        positions: Mapping[str, int],
    ) -> None:
        self._wanted: dict[int, list[WeightCall]] = {}
        for name, event in at.items():
            if name in consumers:
                self._wanted.setdefault(event, []).append(consumers[name].call)
        self._examples, self._positions, self._event = examples, positions, 0
        self.rows: dict[str, Tensor] = {}

    def ended(self, outputs: Any) -> None:
        """The next event has made these."""
        for call in self._wanted.get(self._event, ()):
            value = next((v for v in pytree.tree_leaves(outputs) if isinstance(v, Tensor)), None)
            if value is not None:
                self.rows[call.name] = output_rows(call, value, self._examples, positions=self._positions[call.name])
        self._event += 1
