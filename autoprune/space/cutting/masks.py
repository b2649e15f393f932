"""Masks of single weights: which of them stay, in the order of their units, and kept while a network trains.

A mask is a buffer of the layer beside its weights (`weight_mask` beside `weight`), in no state dict: networks are saved
as they are called, with zeros where weights are left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from autoprune.space.arrays import IntArray
from autoprune.space.density import LayerDensity

_SUFFIX = "_mask"


class Masked(NamedTuple):
    """Weights of a network, some of which are left out.

    Attributes:
        name: of the weights.
        weight: they themselves.
        mask: of their shape, True where they stay; whoever changes it in place changes which ones these are.
        density: how the mask may look.
    """

    name: str
    weight: Tensor
    mask: Tensor
    density: LayerDensity


def units_of(density: LayerDensity, tensor: Tensor) -> Tensor:
    """(units, weights of one) of a tensor of the shape of the weights."""
    laid = tensor.movedim(density.reads, -1)  # outputs, kernel, inputs
    laid = laid.reshape(laid.shape[0], -1, laid.shape[-1])
    rows, columns = density.block
    blocks = laid.reshape(laid.shape[0] // rows, rows, laid.shape[1], laid.shape[2] // columns, columns)
    return blocks.permute(0, 2, 3, 1, 4).reshape(density.units, density.unit)


def of_units(density: LayerDensity, units: Tensor) -> Tensor:
    """A tensor of the shape of the weights, of (units,) values or (units, weights of one)."""
    reads, (rows, columns) = density.reads, density.block
    outputs, inputs = density.shape[1 - reads], density.shape[reads]
    kernel = density.shape[2:]
    each = units.reshape(density.units, -1).expand(density.units, density.unit)
    blocks = each.reshape(outputs // rows, math.prod(kernel), inputs // columns, rows, columns)
    laid = blocks.permute(0, 3, 1, 2, 4).reshape(outputs, *kernel, inputs)
    return laid.movedim(-1, reads).contiguous()


def ranks_of_weights(density: LayerDensity, ranks: IntArray) -> Tensor:
    """Of each weight, the width at which it comes in, counted from 0; from the ranks of units."""
    return of_units(density, torch.from_numpy(ranks).to(torch.int32))


def put_mask(network: nn.Module, density: LayerDensity, mask: Tensor | None) -> None:
    """Leave weights of a layer out: they are 0, and stay so in trainings. None: all are there.

    Args:
        network: changed in place.
        density: of the layer.
        mask: of the shape of the weights.
    """
    path, _, attribute = density.tensor.rpartition(".")
    layer = network.get_submodule(path)
    layer._buffers.pop(f"{attribute}{_SUFFIX}", None)
    if mask is None:
        return
    weight = getattr(layer, attribute)
    layer.register_buffer(f"{attribute}{_SUFFIX}", mask.to(weight.device), persistent=False)
    object.__setattr__(layer, f"{attribute}{_SUFFIX}_density", density)
    with torch.no_grad():
        weight.masked_fill_(~mask.to(weight.device), 0.0)


def masks_of(network: nn.Module) -> list[Masked]:
    """All masks of a network."""
    return list(_masks(network))


def keep_masks(network: nn.Module) -> None:
    """Set the weights to 0 that are left out, whatever has been done to them."""
    with torch.no_grad():
        for masked in _masks(network):
            masked.weight.masked_fill_(~masked.mask, 0.0)


@contextmanager
def gradients_masked(network: nn.Module) -> Iterator[None]:
    """Inside, weights that are left out get no gradients, whoever trains: optimizers leave what is 0 at 0."""

    def only(mask: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda gradient: gradient.masked_fill(~mask.to(gradient.device), 0.0)

    masks = [masked for masked in _masks(network) if masked.weight.requires_grad]
    hooks = [m.weight.register_hook(only(m.mask)) for m in masks]  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def masks_from_zeros(network: nn.Module) -> None:
    """Let the masks of a network follow weights that were loaded into it: what is 0 is left out."""
    for masked in _masks(network):
        units = units_of(masked.density, masked.weight.detach())
        masked.mask.copy_(of_units(masked.density, (units != 0).any(dim=1)))


def counted(network: nn.Module) -> Mapping[str, int]:
    """Name of weights that have a mask -> how many of them stay."""
    return {masked.name: int(masked.mask.sum()) for masked in _masks(network)}


def _masks(network: nn.Module) -> Iterator[Masked]:
    for path, module in network.named_modules():
        for name, mask in module._buffers.items():
            density = getattr(module, f"{name}_density", None)
            if mask is not None and isinstance(density, LayerDensity):
                attribute = name.removesuffix(_SUFFIX)
                full = f"{path}.{attribute}" if path else attribute
                yield Masked(full, getattr(module, attribute), mask, density)
