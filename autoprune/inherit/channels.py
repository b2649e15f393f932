"""Which channel of the space each input of a weight belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from autoprune.space.groups import AxisLayout, SearchSpace
from autoprune.space.kinds import KINDS


@final
@dataclass(frozen=True, slots=True, eq=False)
class ChannelInputs:
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
    def on(cls, axis: AxisLayout, inputs: int, space: SearchSpace) -> ChannelInputs:
        """Of the first inputs of an axis; each its own channel where they are dimensions of heads, or no even map."""
        group, channel = axis.group[:inputs], axis.channel[:inputs]
        alone = ChannelInputs(torch.arange(inputs), torch.zeros(inputs, dtype=torch.int64), inputs, 1)
        if (group < 0).any() or any(KINDS[space.groups[int(g)].kind].rule for g in np.unique(group)):
            return alone
        found, of, counts = np.unique(np.stack([group, channel]), axis=1, return_inverse=True, return_counts=True)
        if (counts != counts[0]).any():
            return alone
        of = of.reshape(-1)
        order = np.argsort(of, kind="stable")
        place = np.empty(inputs, dtype=np.int64)
        place[order] = np.tile(np.arange(counts[0]), found.shape[1])
        return ChannelInputs(torch.from_numpy(of), torch.from_numpy(place), found.shape[1], int(counts[0]))

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
