"""Factors on whole residual blocks, beside those on channels: each scales what its block adds to the stream."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, final

import torch
from torch import Tensor, nn

from autoprune.data.batch import Batch
from autoprune.errors import ConfigError
from autoprune.space.groups import SearchSpace
from autoprune.space.presence import Block
from autoprune.sparsity.channels import GroupChannels, weights_of
from autoprune.sparsity.gates import Gates


@final
class BlockGates(Gates):
    """One free factor for each channel, then one for each block, 1 at the beginning.

    Args:
        channels: of the network.
        ends: index of the group of a block -> names of the weights that make what it adds, see `branch_ends`.

    Attributes:
        groups: of the blocks, in the order of their factors.
    """

    def __init__(self, channels: GroupChannels, ends: Mapping[int, tuple[str, ...]]) -> None:
        super().__init__()
        self.channels, self._ends, self.groups = channels, tuple(ends.values()), tuple(ends)
        number = channels.number + len(ends)
        self.values = nn.Parameter(torch.ones(number, device=channels.slots.device))

    def forward(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Gates.forward`."""
        number = self.channels.number
        found = self.channels.scaled(weights, self.values[:number], self.channels.gated)
        for factor, names in zip(self.values[number:], self._ends, strict=True):
            found |= {name: found.get(name, weights[name]) * factor.to(weights[name].dtype) for name in names}
        return found


def branch_ends(network: nn.Module, space: SearchSpace, batch: Batch, *, method: str) -> dict[int, tuple[str, ...]]:
    """Index of the group of a block -> weight and bias of the last layer of its branch, without which it adds nothing.

    It is the last of the layers of a block that, at 0, makes the block give back what it reads; blocks of several
    branches have none, and neither have those of networks in graph form.

    Args:
        network: in evaluation mode it is only read; its weights are put back.
        space: with the blocks that it offers.
        batch: an input.
        method: who asks, for messages.

    Raises:
        ConfigError: the space offers no blocks, or no block has such a layer.
    """
    if not space.presence.blocks:
        raise ConfigError(
            f"sparsity training {method!r} is to scale blocks, and the space offers none that can be left out: set "
            f"space.blocks to true, or the method's blocks to false"
        )
    weights, modules = weights_of(network), dict(network.named_modules())
    found: dict[int, tuple[str, ...]] = {}
    for group, block in space.presence.blocks.items():
        own = [name for name in block.tensors if name in weights]
        layers = list(dict.fromkeys(name.rpartition(".")[0] for name in own))
        order = {name: number for number, name in enumerate(modules)}
        for layer in sorted(layers, key=lambda name: order.get(name, -1), reverse=True):
            names = tuple(name for name in own if name.rpartition(".")[0] == layer)
            if block.name in modules and _is_end(network, modules[block.name], block, names, batch):
                found[group] = names
                break
    if not found:
        raise ConfigError(
            f"sparsity training {method!r} is to scale blocks, and none of this network has one layer at the end of "
            f"its branch: set the method's blocks to false"
        )
    return found


def _is_end(network: nn.Module, module: nn.Module, block: Block, names: tuple[str, ...], batch: Batch) -> bool:
    """Whether the block gives back its input where these weights are 0."""
    seen: list[tuple[Any, Any]] = []

    def note(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        read = kwargs.get(block.argument) if isinstance(block.argument, str) else args[block.argument]
        seen.append((read, output[0] if block.outputs else output))

    trained = {m: m.training for m in network.modules()}
    handle = module.register_forward_hook(note, with_kwargs=True)
    try:
        with torch.no_grad(), _at_zero(network, names):
            batch.outputs(network.eval())
    finally:
        handle.remove()
        for part, flag in trained.items():
            part.training = flag
    return bool(seen) and all(
        isinstance(read, Tensor)
        and isinstance(given, Tensor)
        and read.shape == given.shape
        and torch.allclose(read, given, rtol=1e-4, atol=1e-6)
        for read, given in seen
    )


@contextmanager
def _at_zero(network: nn.Module, names: tuple[str, ...]) -> Iterator[None]:
    weights = weights_of(network)
    kept = {name: weights[name].detach().clone() for name in names}
    try:
        for name in names:
            weights[name].zero_()
        yield
    finally:
        for name, value in kept.items():
            weights[name].copy_(value)
