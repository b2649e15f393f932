"""Residual blocks that can be left out, and what is there only where they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import final

from autoprune.space.arrays import Widths


@final
@dataclass(frozen=True, slots=True)
class Block:
    """A residual block that can be left out: its output becomes its input.

    Attributes:
        name: path of its module.
        input: graph node of the value that enters it.
        output: graph node of the value that leaves it.
        operations: indices of its matrix products in `SearchSpace.operations`.
        tensors: names of the parameters and buffers that go with it.
        argument: position or keyword of the input of its module that takes the output's place.
        outputs: length of the tuple that its module returns, the output first; 0 where it returns a tensor.
    """

    name: str
    input: str
    output: str
    operations: tuple[int, ...] = ()
    tensors: tuple[str, ...] = ()
    argument: int | str = 0
    outputs: int = 0

    @property
    def group(self) -> str:
        """Name of the group that switches it, where it is offered."""
        return f"block:{self.name}"


@final
@dataclass(frozen=True, eq=False)
class Presence:
    """What goes where a group has the width 0: the one place that knows which group switches which block.

    Attributes:
        blocks: index of a group -> the block that it switches on and off, in graph order.
    """

    blocks: Mapping[int, Block]

    @cached_property
    def tensors(self) -> dict[str, int]:
        """Name of a parameter or buffer -> the group without which it is not there; no entry: it always is."""
        return {name: group for group, block in self.blocks.items() for name in block.tensors}

    def left_out(self, widths: Sequence[int]) -> tuple[Block, ...]:
        """The blocks that these widths switch off, in graph order."""
        return tuple(block for group, block in self.blocks.items() if not widths[group])

    def with_all(self, widths: Widths) -> Widths:
        """These widths with every block switched on."""
        return tuple(1 if group in self.blocks else width for group, width in enumerate(widths))
