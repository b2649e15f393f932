"""The calls of a network that read the channels of its groups, seen while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from autoprune.space.cutting.slicing import tensor_of
from autoprune.space.groups import AxisLayout, SearchSpace
from autoprune.space.kinds import KINDS
from autoprune.space.options.ties import set_ranges

_CALLS = dict.fromkeys(("conv1d", "conv2d", "conv3d", "convolution", "linear", "matmul", "mm"), (0, 1))
_CALLS |= {f"conv_transpose{n}d": (0, 1) for n in (1, 2, 3)} | {"addmm": (1, 2)}
"""Name of a function -> positions of its input and its weight."""

_KEYWORDS = ("input", "weight")
_TURNED = ("t", "transpose", "numpy_T", "__get__", "permute")
"""What graphs without high-level operators do to a weight before it is multiplied with."""


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
class _Reader:
    slots: Tensor
    spatial: int
    weight: Tensor


@final
class Reads(TorchFunctionMode):
    """Inside `batch`, sums over the values that readers get, and multiplies them by gates where there are some.

    Args:
        model: the network that will run.
        space: its space.
        slots: numbers of its channels.
        values: sum over the values; without, only count them.
    """

    def __init__(self, model: nn.Module, space: SearchSpace, slots: Slots, *, values: bool) -> None:
        super().__init__()
        self._slots, self._values = slots, values
        self._readers: dict[int, _Reader] = {}
        for layout in space.tensors:
            for dim in layout.reads:
                axis = layout.axes[dim]
                if axis is not None and (axis.group >= 0).any():
                    weight = tensor_of(model, layout.name)
                    self._readers[id(weight)] = _Reader(slots.of(axis), weight.ndim - 2, weight)
        self._turned: dict[int, tuple[Tensor, _Reader]] = {}
        self._gates: Tensor | None = None
        self._outputs: list[tuple[Tensor, Tensor]] | None = None
        self.moments, self.seen = torch.zeros(0), torch.zeros(0)

    @contextmanager
    def batch(self, gates: Tensor | None, outputs: list[tuple[Tensor, Tensor]] | None = None) -> Iterator[None]:
        """Begin the sums anew and watch what runs inside.

        Args:
            gates: (examples, slots) factors.
            outputs: filled with (slots that it reads, its output) of each call.
        """
        first = next(iter(self._readers.values()), None)
        device = None if first is None else first.slots.device
        self.moments = torch.zeros(4, self._slots.number, dtype=torch.float64, device=device)
        self.seen = torch.zeros(self._slots.number, dtype=torch.float64, device=device)
        self._gates, self._outputs = gates, outputs
        try:
            with self:
                yield
        finally:
            self._gates = self._outputs = None
            self._turned.clear()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Called by torch in place of each of its functions."""
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "").partition(".")[0]
        if name in _TURNED:
            made = func(*args, **kwargs)
            reader = self._readers.get(id(args[0])) if args else None
            if reader is not None and reader.spatial == 0 and isinstance(made, Tensor):
                self._turned[id(made)] = made, reader  # the tensor is kept, so that its id stays its own
            return made
        if name not in _CALLS:
            return func(*args, **kwargs)
        reader, args, kwargs = self._watched(name, args, kwargs)
        made = func(*args, **kwargs)
        if reader is not None and self._outputs is not None:
            self._outputs.append((reader.slots, made))
        return made

    def _watched(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[_Reader | None, tuple[Any, ...], dict[str, Any]]:
        """Who reads, and the arguments of its call with what it gets instead."""
        given: list[Any] = []
        for position, keyword in zip(_CALLS[name], _KEYWORDS, strict=True):
            given.append(args[position] if position < len(args) else kwargs.get(keyword))
        inputs, weight = given
        reader = self._readers.get(id(weight)) or self._turned.get(id(weight), (None, None))[1]
        if reader is None or not isinstance(inputs, Tensor):
            return None, args, kwargs
        read = self._read(inputs, reader)
        place = _CALLS[name][0]
        if place < len(args):
            return reader, (*args[:place], read, *args[place + 1 :]), kwargs
        return reader, args, kwargs | {"input": read}

    def _read(self, inputs: Tensor, reader: _Reader) -> Tensor:
        """What the reader gets instead: the same, or gated."""
        dim = inputs.ndim - 1 - reader.spatial
        size = inputs.shape[dim]
        if size % len(reader.slots):
            return inputs
        slots = reader.slots.repeat(size // len(reader.slots))  # a grouped convolution has the axis of one group
        self._count(inputs.detach(), dim, slots)
        if self._gates is None:
            return inputs
        gates = self._gates[:, :-1]
        factors = torch.cat([gates, torch.ones_like(gates[:, :1])], dim=1)[:, slots]
        batch = inputs.shape[0] if dim else 1
        # windows that are folded into the batch belong to their example; where there is no batch, to the first
        examples = len(factors)
        factors = factors.repeat_interleave(batch // examples, dim=0) if batch % examples == 0 else factors[:1]
        shape = [1] * inputs.ndim
        shape[dim] = size
        if dim:
            shape[0] = len(factors)
        return inputs * factors.reshape(shape).to(inputs.dtype)

    def _count(self, inputs: Tensor, dim: int, slots: Tensor) -> None:
        rows = inputs.movedim(dim, 0).flatten(1) if inputs.ndim > 1 else inputs[:, None]
        self.seen.index_add_(0, slots, torch.full_like(slots, rows.shape[1], dtype=torch.float64))
        if not self._values:
            return
        sums = (
            rows.sum(dim=1, dtype=torch.float64),
            rows.double().square().sum(dim=1),
            (rows == 0).sum(dim=1).double(),
            rows.abs().sum(dim=1, dtype=torch.float64),
        )
        for moment, total in zip(self.moments, sums, strict=True):
            moment.index_add_(0, slots, total)
