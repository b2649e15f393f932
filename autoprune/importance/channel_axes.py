"""Where the channels of all groups lie in the weights that write or read them, to sum over a channel's weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, final

import torch
from torch import Tensor, nn

from autoprune.importance.reads import Slots
from autoprune.space.cutting.masks import of_units
from autoprune.space.groups import SearchSpace

Side: TypeAlias = Literal["written", "read"]


@final
@dataclass(frozen=True, slots=True, eq=False)
class ChannelAxis:
    """The axis of a weight along which channels lie.

    Attributes:
        name: of the weight.
        dim: the axis.
        numbers: (n,) the slot of each index; the last slot where it belongs to no channel. Of single weights: of each
            element of the flattened weight, with `dim` 0.
    """

    name: str
    dim: int
    numbers: Tensor

    def factors(self, values: Tensor, ndim: int) -> Tensor:
        """Values of all slots, each where its channel lies, shaped to multiply the weight."""
        shape = [1] * ndim
        shape[self.dim] = -1
        return values[self.numbers].reshape(shape)


def axes_of(model: nn.Module, space: SearchSpace, slots: Slots, side: Side) -> list[ChannelAxis]:
    """All axes of weights and biases that write channels, or all that read them; scales of batch norms are neither."""
    norms = {name for name, module in model.named_modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)}
    outside, found = slots.number - 1, []
    for layout in space.tensors:
        if layout.kind == "buffer" or layout.name.rpartition(".")[0] in norms:
            continue
        seen = torch.zeros(slots.number, dtype=torch.bool)
        for dim, axis in enumerate(layout.axes):
            if axis is None or (dim in layout.reads) != (side == "read"):
                continue
            numbers = slots.of(axis)
            numbers = torch.where(seen.to(numbers.device)[numbers], outside, numbers)  # each channel along one axis
            if bool((numbers != outside).any()):
                seen[numbers.cpu()] = True
                found.append(ChannelAxis(layout.name, dim, numbers))
    return found


def owned_axes(model: nn.Module, space: SearchSpace, slots: Slots) -> list[ChannelAxis]:
    """The axes of the weights that write channels; for channels that none writes, those that read them."""
    written = axes_of(model, space, slots, "written")
    outside = slots.number - 1
    taken = torch.zeros(slots.number, dtype=torch.bool)
    for axis in written:
        taken[axis.numbers.cpu()] = True
    found = list(written)
    for name, (group, density) in space.sparse.items():  # every weight has a slot of its own
        units = torch.arange(density.units, device=slots.device) + slots.part(group, 0, density.units).start
        found.append(ChannelAxis(name, 0, of_units(density, units).flatten()))
    for axis in axes_of(model, space, slots, "read"):
        numbers = torch.where(taken.to(axis.numbers.device)[axis.numbers], outside, axis.numbers)
        if bool((numbers != outside).any()):
            found.append(ChannelAxis(axis.name, axis.dim, numbers))
    return found


def channel_sums(axes: Iterable[ChannelAxis], tensors: Mapping[str, Tensor], number: int) -> Tensor:
    """(number - 1,) sum over all entries that belong to each channel, in double precision.

    Args:
        axes: where channels lie.
        tensors: name of a weight -> a tensor of its shape.
        number: of slots.
    """
    total: Tensor | None = None
    for axis in axes:
        tensor = tensors[axis.name]
        if total is None:
            total = torch.zeros(number, dtype=torch.float64, device=tensor.device)
        by_index = tensor.detach().double().movedim(axis.dim, 0).reshape(len(axis.numbers), -1).sum(dim=1)
        total.index_add_(0, axis.numbers, by_index)
    return torch.zeros(number - 1, dtype=torch.float64) if total is None else total[:-1]
