"""A call of the dense network that reads channels of the space, as a linear function of its inputs and its weight.

Methods need not know what kind it is: a convolution (plain, grouped, transposed), a linear layer, a matrix product.
Depthwise convolutions read no other channel than their own and lose nothing by a cut.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias, final

import numpy as np
import torch
from torch import Tensor, nn

from autoprune.space.cutting.cut import Cut
from autoprune.space.cutting.slicing import tensor_of
from autoprune.space.groups import AxisLayout, SearchSpace
from autoprune.space.kinds import KINDS

Run: TypeAlias = Callable[[Tensor, Tensor], Tensor]


@final
@dataclass(frozen=True, slots=True, eq=False)
class Channels:
    """Which channel each input of a block belongs to: a flattened map has several inputs of each.

    Attributes:
        of: (inputs,) the channel.
        place: (inputs,) which of its channel's inputs it is.
        number: of channels.
        places: inputs of each channel.
    """

    of: Tensor
    place: Tensor
    number: int
    places: int

    @classmethod
    def on(cls, axis: AxisLayout, inputs: int, space: SearchSpace) -> Channels:
        """Of the first inputs of an axis; each its own channel where they are dimensions of heads, or no even map."""
        group, channel = axis.group[:inputs], axis.channel[:inputs]
        alone = Channels(torch.arange(inputs), torch.zeros(inputs, dtype=torch.int64), inputs, 1)
        if (group < 0).any() or any(KINDS[space.groups[int(g)].kind].rule for g in np.unique(group)):
            return alone
        found, of, counts = np.unique(np.stack([group, channel]), axis=1, return_inverse=True, return_counts=True)
        if (counts != counts[0]).any():
            return alone
        of = of.reshape(-1)
        order = np.argsort(of, kind="stable")
        place = np.empty(inputs, dtype=np.int64)
        place[order] = np.tile(np.arange(counts[0]), found.shape[1])
        return Channels(torch.from_numpy(of), torch.from_numpy(place), found.shape[1], int(counts[0]))

    def apart(self, values: Tensor, dim: int) -> Tensor:
        """Split the dimension of inputs into (places, channels)."""
        order = torch.empty_like(self.of)
        order[self.place * self.number + self.of] = torch.arange(len(self.of))
        ordered = values.index_select(dim, order.to(values.device))
        return ordered.reshape(*values.shape[:dim], self.places, self.number, *values.shape[dim + 1 :])

    def together(self, values: Tensor, dim: int, kept: Tensor) -> Tensor:
        """Undo `apart` for the inputs that are kept; `values` has (places, channels that are kept) there."""
        channels = self.kept(kept)[0]
        order = self.place[kept] * len(channels) + torch.searchsorted(channels, self.of[kept])
        return values.flatten(dim, dim + 1).index_select(dim, order.to(values.device))

    def kept(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        """Channels that are kept, and those that are gone, of kept inputs."""
        left = torch.zeros(self.number, dtype=torch.bool)
        left[self.of[kept.cpu()]] = True
        return left.nonzero()[:, 0], (~left).nonzero()[:, 0]


@final
@dataclass(frozen=True, slots=True, eq=False)
class Consumer:
    """One call that reads channels.

    Attributes:
        weight: name of its weight.
        reads: axis of the weight along which the incoming channels of a block lie (of all blocks, if transposed).
        writes: axis of the outgoing channels.
        channels: of the inputs of a block.
        blocks: groups of a grouped convolution; 1 for all else.
        spatial: dimensions of its inputs and outputs that follow the channels.
        outputs: how many of those there are in the dense network.
        bias: name of the bias that it adds; None if there is none, or a computed one.
        run: (inputs, weight) -> outputs without the bias; the sizes of both may be those of a cut network.
    """

    weight: str
    reads: int
    writes: int
    channels: Channels
    blocks: int
    spatial: int
    outputs: int
    bias: str | None
    run: Run

    def matrix(self, weight: Tensor) -> Tensor:
        """(blocks, incoming channels of a block, all else) of a weight of this consumer, cut or not."""
        rows = weight.movedim(self.reads, 0)
        if self.reads == 0:
            return rows.reshape(self.blocks, len(rows) // self.blocks, -1)
        return rows.reshape(len(rows), self.blocks, -1).movedim(1, 0)

    def weights(self, matrix: Tensor, like: Tensor) -> Tensor:
        """The weight, in the shape of `like`, that has this matrix."""
        shape = like.movedim(self.reads, 0).shape
        rows = matrix if self.reads == 0 else matrix.movedim(0, 1)
        return rows.reshape(shape).movedim(0, self.reads).to(like.dtype)

    def rows(self, values: Tensor) -> Tensor:
        """(positions, blocks, channels of a block) of inputs."""
        flat = values.movedim(values.ndim - 1 - self.spatial, -1)
        return flat.reshape(-1, self.blocks, flat.shape[-1] // self.blocks)

    def kept(self, cut: Cut) -> Tensor | None:
        """Incoming channels of a block that survive; None where all do."""
        indices = cut.kept[self.weight][self.reads]
        return indices if indices is None or self.reads else indices[: len(indices) // self.blocks]

    def lost_inputs(self, cut: Cut) -> bool:
        """Whether the cut network has it, with fewer incoming channels."""
        return self.weight in cut.kept and cut.kept[self.weight][self.reads] is not None

    def dense_weight(self, cut: Cut, dense: nn.Module) -> Tensor:
        """The weight of the dense network, of the outputs that survive and all inputs."""
        weight, indices = tensor_of(dense, self.weight).detach(), cut.kept[self.weight][self.writes]
        return weight if indices is None else weight.index_select(self.writes, indices.to(weight.device))
