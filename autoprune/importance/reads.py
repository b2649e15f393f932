"""The calls of a network that read the channels of its groups, seen while it runs."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from autoprune.data.batch import Batch
from autoprune.errors import is_interrupted
from autoprune.importance.reading import BatchAxis, Change, Read, Recorder, Slots, gated
from autoprune.space.cutting.slicing import tensor_of
from autoprune.space.groups import SearchSpace

__all__ = ["CALLS", "KEYWORDS", "OPENED", "Change", "Read", "Reads", "Recorder", "Slots", "gated", "opened"]

CALLS = dict.fromkeys(("conv1d", "conv2d", "conv3d", "convolution", "linear", "matmul", "mm"), (0, 1))
CALLS |= {f"conv_transpose{n}d": (0, 1) for n in (1, 2, 3)} | {"addmm": (1, 2)}
"""Name of a function -> positions of its input and its weight."""

KEYWORDS = ("input", "weight")
_TURNED = ("t", "transpose", "numpy_T", "__get__", "permute")
"""What graphs without high-level operators do to a weight before it is multiplied with."""
_SPLIT = ("split", "chunk", "tensor_split", "unsafe_chunk", "unsafe_split", "split_with_sizes")
"""What attention does to a weight that several projections share."""
_TRIED = 3
"""Examples by which is told where they lie."""
OPENED = ("multi_head_attention_forward",)
"""Functions in Python whose own calls are to be seen."""


@final
@dataclass(frozen=True, slots=True, eq=False)
class _Reader:
    name: str
    slots: Tensor
    spatial: int
    weight: Tensor


@final
class Reads(TorchFunctionMode):
    """Inside `batch`, shows recorders what readers get, or gives readers something else.

    Args:
        model: the network that will run.
        space: its space.
        slots: numbers of its channels.
        recorders: what is shown each read.
    """

    def __init__(self, model: nn.Module, space: SearchSpace, slots: Slots, recorders: Sequence[Recorder] = ()) -> None:
        super().__init__()
        self._slots, self._recorders, self._recorded = slots, recorders, recorders
        self._readers: dict[int, _Reader] = {}
        for layout in space.tensors:
            for dim in layout.reads:
                axis = layout.axes[dim]
                if axis is not None and (axis.group >= 0).any():
                    weight = tensor_of(model, layout.name)
                    self._readers[id(weight)] = _Reader(layout.name, slots.of(axis), weight.ndim - 2, weight)
        self._made: dict[int, tuple[Tensor, _Reader]] = {}
        self._change: Change | None = None
        self._outputs: list[tuple[Tensor, Tensor]] | None = None
        self._examples = 1
        self._axes: list[BatchAxis | None] = []  # of each call, in their order
        self._got: list[tuple[str, int, Tensor]] | None = None
        self._count = 0
        self.seen = torch.zeros(0)

    def learn_axes(self, run: Callable[[Any], Any], inputs: Any) -> None:
        """Find out where examples lie in what each call gets, by some of a batch and the first of them alone.

        Sizes cannot tell: an axis of time may be as long as the batch, and rows may come in the order of time. Where a
        network does not run on one example, or otherwise, sizes decide as far as they can.

        Args:
            run: the network, of inputs.
            inputs: of a batch.
        """
        batch = Batch(inputs)
        if batch.is_ragged or len(batch) < 2:
            return
        got = []
        for part in (batch.first(_TRIED), batch.first(1)):
            self._got = []
            try:
                with torch.no_grad(), self.batch(len(part), recording=False):
                    run(part.inputs)
                got.append(self._got)
            except Exception as error:
                if is_interrupted(error):
                    raise
                return
            finally:
                self._got = None
        several, one = got
        if [(name, dim) for name, dim, _ in several] == [(name, dim) for name, dim, _ in one]:
            pairs = zip(several, one, strict=True)
            self._axes = [BatchAxis.found(a, b, dim) for (_, dim, a), (_, _, b) in pairs]

    @contextmanager
    def batch(
        self,
        examples: int = 1,
        change: Change | None = None,
        outputs: list[tuple[Tensor, Tensor]] | None = None,
        *,
        recording: bool = True,
    ) -> Iterator[None]:
        """Watch what runs inside, which is one batch.

        Args:
            examples: how many it holds.
            change: what readers get.
            outputs: filled with (slots that it reads, its output) of each call.
            recording: recorders are shown it.
        """
        first = next(iter(self._readers.values()), None)
        device = None if first is None else first.slots.device
        self.seen = torch.zeros(self._slots.number, dtype=torch.float64, device=device)
        self._examples, self._change, self._outputs, self._count = examples, change, outputs, 0
        self._recorded = self._recorders if recording else ()
        for recorder in self._recorded:
            recorder.begin(examples)
        try:
            with self:
                yield
        finally:
            self._change = self._outputs = None
            self._made.clear()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Called by torch in place of each of its functions."""
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "").partition(".")[0]
        if name in OPENED:
            with self:
                return opened(func)(*args, **kwargs)
        if name in _TURNED or name in _SPLIT:
            made = func(*args, **kwargs)
            self._follow(name, args[0] if args else None, made)
            return made
        if name not in CALLS:
            return func(*args, **kwargs)
        reader, args, kwargs = self._watched(name, args, kwargs)
        made = func(*args, **kwargs)
        if reader is not None and self._outputs is not None:
            self._outputs.append((reader.slots, made))
        return made

    def _follow(self, name: str, weight: Any, made: Any) -> None:
        """Know a weight that was turned or split; tensors are kept, so that their ids stay their own."""
        reader = self._reader(weight)
        if reader is None:
            return
        if name in _TURNED and reader.spatial == 0 and isinstance(made, Tensor):
            self._made[id(made)] = made, reader
        if name in _SPLIT:
            whole = weight.shape[1:]
            self._made |= {id(part): (part, reader) for part in made if part.shape[1:] == whole}

    def _reader(self, weight: Any) -> _Reader | None:
        return self._readers.get(id(weight)) or self._made.get(id(weight), (None, None))[1]

    def _watched(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[_Reader | None, tuple[Any, ...], dict[str, Any]]:
        """Who reads, and the arguments of its call with what it gets."""
        given: list[Any] = []
        for position, keyword in zip(CALLS[name], KEYWORDS, strict=True):
            given.append(args[position] if position < len(args) else kwargs.get(keyword))
        inputs, weight = given
        reader = self._reader(weight)
        if reader is None or not isinstance(inputs, Tensor):
            return None, args, kwargs
        got = self._read(inputs, reader)
        place = CALLS[name][0]
        if place < len(args):
            return reader, (*args[:place], got, *args[place + 1 :]), kwargs
        return reader, args, kwargs | {"input": got}

    def _read(self, inputs: Tensor, reader: _Reader) -> Tensor:
        """What the reader gets."""
        dim = inputs.ndim - 1 - reader.spatial
        size = inputs.shape[dim]
        if size % len(reader.slots):
            return inputs
        slots = reader.slots.repeat(size // len(reader.slots))  # a grouped convolution has the axis of one group
        axis = self._axes[self._count] if self._count < len(self._axes) else None
        self._count += 1
        if self._got is not None:
            self._got.append((reader.name, dim, inputs.detach()))
        read = Read(reader.name, inputs, dim, slots, self._examples, axis)
        positions = inputs.numel() // size
        self.seen.index_add_(0, slots, torch.full_like(slots, positions, dtype=torch.float64))
        for recorder in self._recorded:
            recorder.record(read)
        return inputs if self._change is None else self._change(read)


@functools.cache
def opened(func: types.FunctionType) -> types.FunctionType:
    """A function of torch in Python that does not ask modes to take its place, so that they see what it calls."""
    unasked = {name: lambda *_: False for name in func.__globals__ if name.startswith("has_torch_function")}
    opened = types.FunctionType(
        func.__code__, func.__globals__ | unasked, func.__name__, func.__defaults__, func.__closure__
    )
    opened.__kwdefaults__ = func.__kwdefaults__
    return opened
