"""What is seen of a network while it runs: the numbers of channels, and one call that reads some of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, final

import numpy as np
import torch
from torch import Tensor

from autoprune.space.groups import AxisLayout, SearchSpace
from autoprune.space.kinds import KINDS
from autoprune.space.options.ties import set_ranges

_ALIKE = 1e-3
"""Of the largest value: as near as sums of another order are in half precision."""


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
@dataclass(frozen=True, slots=True)
class BatchAxis:
    """Where the examples of a batch lie in what a call gets.

    Attributes:
        dim: the axis, which may hold windows or positions of examples, too.
        strided: the next index is the next example (rows in the order of time, as in torch's attention), not the next
            position of the same one.
    """

    dim: int
    strided: bool = False

    @classmethod
    def found(cls, several: Tensor, one: Tensor, channels: int) -> BatchAxis | None:
        """What a call gets of some examples, and of the first of them alone; None where it cannot be told.

        Args:
            several: of two examples or more.
            one: of the first.
            channels: the axis of the channels.
        """
        if several.ndim != one.ndim or not one.numel():
            return None
        longer = [d for d in range(one.ndim) if several.shape[d] != one.shape[d]]
        if len(longer) != 1 or longer[0] == channels or several.shape[longer[0]] % max(one.shape[longer[0]], 1):
            return None
        dim, size = longer[0], one.shape[longer[0]]
        rows = several.movedim(dim, 0)
        for strided, own in ((False, rows[:size]), (True, rows[:: len(rows) // size])):
            apart = (own.movedim(0, dim) - one).abs()
            if float(apart.max()) <= _ALIKE * float(one.abs().max()):
                return cls(dim, strided)
        return None


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
        axis: where they lie; None: judged by sizes.
    """

    name: str
    inputs: Tensor
    dim: int
    slots: Tensor
    examples: int
    axis: BatchAxis | None = None

    @property
    def batch_dim(self) -> int | None:
        """The axis of the examples, alone or with windows folded into it; None: it has none that can be told."""
        if self.axis is not None:
            return self.axis.dim
        others = [d for d in range(self.inputs.ndim) if d != self.dim]
        exact = next((d for d in others if self.inputs.shape[d] == self.examples), None)
        if exact is not None or not others:
            return exact
        return 0 if self.dim and self.inputs.shape[0] % self.examples == 0 else None

    @property
    def _strided(self) -> bool:
        return self.axis is not None and self.axis.strided

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
        if self._strided:
            moved = moved.reshape(-1, self.examples, *moved.shape[1:]).transpose(0, 1).flatten(0, 1)
        last = moved.shape[-1] if moved.ndim > 2 else 1
        moved = moved.reshape(self.examples, -1, moved.shape[1], moved[0, 0].numel() // last, last)
        return moved.movedim(2, 1).flatten(2, 3)

    def permuted(self, order: Tensor) -> Tensor:
        """The inputs with the examples in another order; as they are where examples cannot be told apart."""
        batch = self.batch_dim
        if batch is None:
            return self.inputs
        windows = self.inputs.shape[batch] // self.examples
        index = order[:, None] * windows + torch.arange(windows, device=order.device)
        if self._strided:
            index = torch.arange(windows, device=order.device)[:, None] * self.examples + order
        index = index.flatten()
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
            windows = shape[batch] // len(factors)
            of_index = of_index.repeat(windows, 1) if self._strided else of_index.repeat_interleave(windows, dim=0)
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
