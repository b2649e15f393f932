"""What the weights that read a group get and give, on some examples, whole and with channels closed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from autoprune.data.batch import Batch
from autoprune.importance.reading import Read
from autoprune.importance.reads import Reads
from autoprune.sparsity.channels import GroupChannels
from autoprune.statistics.running import evaluating


@torch.no_grad()
def reader_outputs(
    network: nn.Module, channels: GroupChannels, batch: Batch, part: slice, factors: Tensor | None = None
) -> list[Tensor]:
    """What each call gives that reads some channels of a part.

    Args:
        network: runs in eval mode, and is left as it was.
        channels: of it.
        batch: on the device.
        part: the channels.
        factors: (number,) that multiply channels where they are read; None: all whole.
    """
    seen: list[tuple[Tensor, Tensor]] = []
    padded = None if factors is None else torch.cat([factors, factors.new_ones(1)])

    def change(read: Read) -> Tensor:
        if padded is None:
            return read.inputs
        shape = [1] * read.inputs.ndim
        shape[read.dim] = -1
        return read.inputs * padded[read.slots].reshape(shape).to(read.inputs.dtype)

    reads = Reads(network, channels.space, channels.slots)
    with evaluating(network), reads.batch(change=change, outputs=seen):
        batch.outputs(network)
    return [made for numbers, made in seen if bool(((numbers >= part.start) & (numbers < part.stop)).any())]


@torch.no_grad()
def mean_squares(network: nn.Module, channels: GroupChannels, batches: Sequence[Batch]) -> Tensor:
    """(number,) mean square of each channel where it is read, over examples, positions and readers."""
    sums = torch.zeros(channels.slots.number, dtype=torch.float64, device=channels.slots.device)
    counts = torch.zeros_like(sums)

    def note(read: Read) -> Tensor:
        rows = read.inputs.movedim(read.dim, 0).reshape(len(read.slots), -1).double()
        sums.index_add_(0, read.slots, rows.square().sum(dim=1))
        counts.index_add_(0, read.slots, torch.full_like(read.slots, rows.shape[1], dtype=torch.float64))
        return read.inputs

    reads = Reads(network, channels.space, channels.slots)
    with evaluating(network):
        for batch in batches:
            with reads.batch(change=note):
                batch.outputs(network)
    return (sums / counts.clamp(min=1))[:-1].float()
