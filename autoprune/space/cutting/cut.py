"""A cut network, and what of each tensor of the dense network is left in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, final

from torch import Tensor, nn

from autoprune.space.groups import SearchSpace, Widths

Kept: TypeAlias = tuple[Tensor | None, ...]
"""Per axis of a tensor the indices that survived, in order; None where all did."""


@final
class KeptIndices(Mapping[str, Kept]):
    """Name of a tensor of the dense network -> its `Kept`; made when asked for, tensors of left out blocks are absent.

    Args:
        places: name -> (number of axes, (dimension, distinct axis) of those that can be cut).
        axes: surviving indices of each distinct axis.
        gone: names of tensors that went as a whole.
    """

    def __init__(
        self,
        places: Mapping[str, tuple[int, tuple[tuple[int, int], ...]]],
        axes: Sequence[Tensor | None],
        gone: frozenset[str],
    ) -> None:
        self._places, self._axes, self._gone = places, axes, gone

    def __getitem__(self, name: str) -> Kept:
        if name in self._gone:
            raise KeyError(name)
        number, dims = self._places[name]
        kept: list[Tensor | None] = [None] * number
        for dim, axis in dims:
            kept[dim] = self._axes[axis]
        return tuple(kept)

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._places if name not in self._gone)

    def __len__(self) -> int:
        return sum(1 for _ in self)


@final
@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """A cut network.

    Attributes:
        network: the network; whoever has the cut may change its weights.
        space: of the dense network.
        widths: those of the network.
        kept: name of a tensor -> per axis the indices that survived.
        order: (name of a tensor, axis) -> all its indices, the most important ones first: what survives at any width is
            a stretch at the beginning. None where the axis holds channels of several groups.
    """

    network: nn.Module
    space: SearchSpace
    widths: Widths
    kept: Mapping[str, Kept]
    order: Callable[[str, int], Tensor | None] = lambda name, dim: None
