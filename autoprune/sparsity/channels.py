"""Where the channels of all groups lie in the tensors of a network in training: sums, norms and scales by channel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from autoprune.importance.channel_axes import ChannelAxis, axes_of
from autoprune.importance.reading import Slots
from autoprune.space.groups import FloatArray, SearchSpace
from autoprune.space.kinds import KINDS
from autoprune.space.options.ties import set_ranges


@final
class GroupChannels:
    """The channels of all ranked groups, numbered one after the other, and where each lies in every tensor.

    A channel is *written* by weights and biases along their output axis, *read* by weights along their input axis, and
    *scaled* and *shifted* by the vectors of batch norms. Blocks that can be left out have no channels here.

    Args:
        network: in the form of its space; only read.
        space: of the network.

    Attributes:
        slots: the numbers.
        number: how many channels there are.
        written, read, scales, shifts: where they lie.
    """

    def __init__(self, network: nn.Module, space: SearchSpace) -> None:
        first = next(network.parameters(), None)
        device = torch.device("cpu") if first is None else first.device
        self.space = space
        self.slots = Slots(space, device)
        self.number = self.slots.number - 1
        self.written = axes_of(network, space, self.slots, "written")
        self.read = axes_of(network, space, self.slots, "read")
        norms = {name for name, module in network.named_modules() if isinstance(module, _BatchNorm)}
        self.scales = self._of_norms(norms, "weight")
        self.shifts = self._of_norms(norms, "bias")

    def _of_norms(self, norms: Iterable[str], attribute: str) -> list[ChannelAxis]:
        found, chosen = [], {f"{name}.{attribute}" for name in norms}
        for layout in self.space.tensors:
            axis = layout.axes[0] if layout.axes else None
            if layout.name in chosen and layout.kind == "parameter" and axis is not None:
                numbers = self.slots.of(axis)
                if bool((numbers != self.number).any()):
                    found.append(ChannelAxis(layout.name, 0, numbers))
        return found

    @cached_property
    def parts(self) -> tuple[slice, ...]:
        """The channels of each tied set of each ranked group."""
        return tuple(part for _, parts in self.of_groups for part in parts)

    @cached_property
    def of_groups(self) -> tuple[tuple[int, tuple[slice, ...]], ...]:
        """(number of the group, channels of each of its tied sets) of all ranked groups."""
        return tuple(
            (index, tuple(self.slots.part(index, start, width) for start, width in set_ranges(group)))
            for index, group in enumerate(self.space.groups)
            if KINDS[group.kind].ranked
        )

    @cached_property
    def group(self) -> Tensor:
        """(number,) the group of each channel."""
        owner = torch.zeros(self.number, dtype=torch.long, device=self.slots.device)
        for index, parts in self.of_groups:
            for part in parts:
                owner[part] = index
        return owner

    @cached_property
    def without_reader(self) -> Tensor:
        """(number,) True for channels that no weight is known to read."""
        return ~self._met(self.read)

    @cached_property
    def without_scale(self) -> Tensor:
        """(number,) True for channels that no batch norm scales."""
        return ~self._met(self.scales)

    def _met(self, axes: Iterable[ChannelAxis]) -> Tensor:
        met = torch.zeros(self.slots.number, dtype=torch.bool, device=self.slots.device)
        for axis in axes:
            met[axis.numbers] = True
        return met[:-1]

    @cached_property
    def gated(self) -> list[ChannelAxis]:
        """Where a factor on each channel switches it: the weights that read it; those that write it, where none do."""
        outside = self.number
        silent = torch.cat([self.without_reader, self.without_reader.new_zeros(1)])
        alone = [ChannelAxis(a.name, a.dim, torch.where(silent[a.numbers], a.numbers, outside)) for a in self.written]
        return [*self.read, *(axis for axis in alone if bool((axis.numbers != outside).any()))]

    def entries(self, weights: Mapping[str, Tensor], axes: Iterable[ChannelAxis]) -> Tensor:
        """(number,) how many elements of these tensors belong to each channel."""
        return self.sums({axis.name: torch.ones_like(weights[axis.name]) for axis in axes}, axes)

    def sums(self, tensors: Mapping[str, Tensor], axes: Iterable[ChannelAxis]) -> Tensor:
        """(number,) sums over the elements that belong to each channel; gradients pass."""
        total: Tensor | None = None
        for axis in axes:
            tensor = tensors[axis.name]
            by_index = tensor.movedim(axis.dim, 0).reshape(len(axis.numbers), -1).sum(dim=1)
            zeros = by_index.new_zeros(self.slots.number)
            added = zeros.index_add(0, axis.numbers, by_index)
            total = added if total is None else total + added
        return torch.zeros(self.number, device=self.slots.device) if total is None else total[:-1]

    def norms(self, weights: Mapping[str, Tensor], axes: Sequence[ChannelAxis], *, least: float = 0.0) -> Tensor:
        """(number,) L2 norms over all elements that belong to each channel; gradients pass.

        Args:
            weights: the parameters by name.
            axes: which of them count.
            least: added to the sum of squares, so that there is a gradient at 0.
        """
        squares = {axis.name: weights[axis.name].square() for axis in axes}
        return (self.sums(squares, axes) + least).sqrt()

    def scaled(self, weights: Mapping[str, Tensor], factors: Tensor, axes: Iterable[ChannelAxis]) -> dict[str, Tensor]:
        """The tensors on these axes, the elements of each channel times its factor; gradients pass.

        Args:
            weights: the parameters by name.
            factors: (number,) one for each channel.
            axes: which tensors.
        """
        padded = torch.cat([factors, factors.new_ones(1)])
        found: dict[str, Tensor] = {}
        for axis in axes:
            tensor = found.get(axis.name, weights[axis.name])
            found[axis.name] = tensor * axis.factors(padded, tensor.ndim).to(tensor.dtype)
        return found

    @torch.no_grad()
    def scale_(self, weights: Mapping[str, Tensor], factors: Tensor, axes: Iterable[ChannelAxis]) -> None:
        """As `scaled`, in place."""
        for name, tensor in self.scaled(weights, factors, axes).items():
            weights[name].copy_(tensor)

    def means(self, values: Tensor) -> Tensor:
        """(number,) for each channel the mean of these (number,) values over its tied set of its group."""
        found = torch.ones_like(values)
        for part in self.parts:
            found[part] = values[part].mean()
        return found

    def split(self, values: Tensor) -> list[FloatArray]:
        """(number,) values -> per group (slots,); blocks, in which nothing is ranked, have the highest: they stay."""
        flat = values.detach().double().cpu().numpy()
        found = [np.full(group.slots, flat.max(initial=1.0)) for group in self.space.groups]
        for index, parts in self.of_groups:
            found[index] = np.concatenate([flat[part] for part in parts])
        return found

    def kept(self, values: Tensor, target: Sequence[int]) -> Tensor:
        """(number,) True for the best channels by value, as many of each tied set as these widths keep.

        Args:
            values: (number,) higher is better; the first one wins among equals.
            target: member of the space.
        """
        chosen = torch.zeros(self.number, dtype=torch.bool, device=values.device)
        for index, parts in self.of_groups:
            group = self.space.groups[index]
            for part in parts:
                width = part.stop - part.start
                count = target[index] * width // group.width
                order = values[part].argsort(descending=True, stable=True)
                chosen[part.start + order[:count]] = True
        return chosen


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    """The parameters of a network by name."""
    return dict(network.named_parameters())
