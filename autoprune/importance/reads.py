"""The calls of a network that read the channels of its groups, seen while it runs."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from autoprune.space.cutting.slicing import tensor_of
from autoprune.space.groups import AxisLayout, SearchSpace
from autoprune.space.kinds import KINDS
from autoprune.space.options.ties import set_ranges

CALLS = dict.fromkeys(("conv1d", "conv2d", "conv3d", "convolution", "linear", "matmul", "mm"), (0, 1))
CALLS |= {f"conv_transpose{n}d": (0, 1) for n in (1, 2, 3)} | {"addmm": (1, 2)}
"""Name of a function -> positions of its input and its weight."""

KEYWORDS = ("input", "weight")
_TURNED = ("t", "transpose", "numpy_T", "__get__", "permute")
"""What graphs without high-level operators do to a weight before it is multiplied with."""
_SPLIT = ("split", "chunk", "tensor_split", "unsafe_chunk", "unsafe_split", "split_with_sizes")
"""What attention does to a weight that several projections share."""
OPENED = ("multi_head_attention_forward",)
"""Functions in Python whose own calls are to be seen."""


@final
class Slots:
    """One number for each channel of each group, and a last one for all that no group owns.

    Args:
        space: the space.
        device: of tensors made here.

    Attributes:
        device: of tensors made here.
        number: how many there are.
    """

    def __init__(self, space: SearchSpace, device: torch.device) -> None:
        lengths = [0 if not KINDS[g.kind].ranked else sum(width for _, width in set_ranges(g)) for g in space.groups]
        self._starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        self.device = device
        self.number = int(self._starts[-1]) + 1

    def of(self, axis: AxisLayout) -> Tensor:
        """(n,) the number of each index of an axis."""
        numbers = np.where(axis.group < 0, self.number - 1, self._starts[axis.group] + axis.channel)
        return torch.from_numpy(numbers).to(self.device)

    def part(self, group: int, start: int, width: int) -> slice:
        """Where the channels of a tied set (or all) of a group lie."""
        first = int(self._starts[group]) + start
        return slice(first, first + width)


@final
@dataclass(frozen=True, slots=True, eq=False)
class Read:
    """One call that reads channels.

    Attributes:
        name: of the weight.
        inputs: what it gets.
        dim: the axis of the channels.
        slots: (size of that axis,) the slot of each index.
        examples: how many the batch holds.
    """

    name: str
    inputs: Tensor
    dim: int
    slots: Tensor
    examples: int

    @property
    def batch_dim(self) -> int | None:
        """The axis of the examples, alone or with windows folded into it; None: it has none that can be told."""
        others = [d for d in range(self.inputs.ndim) if d != self.dim]
        exact = next((d for d in others if self.inputs.shape[d] == self.examples), None)
        if exact is not None or not others:
            return exact
        return 0 if self.dim and self.inputs.shape[0] % self.examples == 0 else None

    def rows(self) -> Tensor:
        """(size, n): all values of each index."""
        inputs = self.inputs.detach()
        return inputs.movedim(self.dim, 0).flatten(1) if inputs.ndim > 1 else inputs[:, None]

    def maps(self) -> Tensor | None:
        """(examples, size, height, width): the positions of each index, the last axis of positions as it is.

        None where examples cannot be told apart.
        """
        batch, inputs = self.batch_dim, self.inputs.detach()
        if batch is None:
            return inputs.reshape(1, -1, 1, 1) if inputs.ndim == 1 and self.examples == 1 else None
        moved = inputs.movedim((batch, self.dim), (0, 1))
        last = moved.shape[-1] if moved.ndim > 2 else 1
        moved = moved.reshape(self.examples, -1, moved.shape[1], moved[0, 0].numel() // last, last)
        return moved.movedim(2, 1).flatten(2, 3)

    def permuted(self, order: Tensor) -> Tensor:
        """The inputs with the examples in another order; as they are where examples cannot be told apart."""
        batch = self.batch_dim
        if batch is None:
            return self.inputs
        windows = self.inputs.shape[batch] // self.examples
        index = (order[:, None] * windows + torch.arange(windows, device=order.device)).flatten()
        return self.inputs.index_select(batch, index)

    def spread(self, factors: Tensor) -> Tensor:
        """(examples or 1, slots) numbers in the shape of the inputs, to be computed with."""
        of_index = factors[:, self.slots]
        shape, batch = [1] * self.inputs.ndim, self.batch_dim
        shape[self.dim] = len(self.slots)
        if len(factors) > 1 and batch is None:  # where there is no batch, those of the first
            of_index = of_index[:1]
        elif len(factors) > 1 and batch is not None:
            # windows that are folded into the batch belong to their example
            shape[batch] = self.inputs.shape[batch]
            of_index = of_index.repeat_interleave(shape[batch] // len(factors), dim=0)
        if batch is not None and batch > self.dim:
            of_index = of_index.T
        return of_index.reshape(shape).to(self.inputs.dtype)


class Recorder(Protocol):
    """Keeps something of what is read, of whole batches only."""

    def begin(self, examples: int) -> None:
        """A batch begins."""

    def record(self, read: Read) -> None:
        """One call of it."""

    def staged(self) -> Sequence[Tensor]:
        """What was recorded of it; the batch counts where all of it is finite."""

    def commit(self) -> None:
        """The batch counts."""


Change: TypeAlias = Callable[[Read], Tensor]
"""What a reader gets instead."""


def gated(gates: Tensor) -> Change:
    """Multiply what is read by (examples, slots) gates; what no group owns keeps its values."""
    factors = torch.cat([gates[:, :-1], torch.ones_like(gates[:, :1])], dim=1)

    def change(read: Read) -> Tensor:
        return read.inputs * read.spread(factors)

    return change


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
        self._slots, self._recorders = slots, recorders
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
        self.seen = torch.zeros(0)

    @contextmanager
    def batch(
        self,
        examples: int = 1,
        change: Change | None = None,
        outputs: list[tuple[Tensor, Tensor]] | None = None,
    ) -> Iterator[None]:
        """Watch what runs inside, which is one batch.

        Args:
            examples: how many it holds.
            change: what readers get.
            outputs: filled with (slots that it reads, its output) of each call.
        """
        first = next(iter(self._readers.values()), None)
        device = None if first is None else first.slots.device
        self.seen = torch.zeros(self._slots.number, dtype=torch.float64, device=device)
        self._examples, self._change, self._outputs = examples, change, outputs
        for recorder in self._recorders:
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
        read = Read(reader.name, inputs, dim, slots, self._examples)
        positions = inputs.numel() // size
        self.seen.index_add_(0, slots, torch.full_like(slots, positions, dtype=torch.float64))
        for recorder in self._recorders:
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
