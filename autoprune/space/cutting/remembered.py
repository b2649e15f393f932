"""Sizes that a block remembers beside its layers: it may build a layer from them later, as blocks do that are fused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

_LAYERS = (_ConvNd, nn.Linear, _NormBase)

_INPUTS, _OUTPUTS = ("in_channels", "in_features"), ("out_channels", "out_features")

_MEANINGS: Mapping[str, Sequence[Sequence[str]]] = {
    **dict.fromkeys(("in_channels", "in_chs", "in_planes", "inplanes", "in_features"), (_INPUTS, ("num_features",))),
    **dict.fromkeys(("out_channels", "out_chs", "out_planes", "out_features"), (_OUTPUTS, ("num_features",))),
    "num_features": (("num_features",), _OUTPUTS),
    **dict.fromkeys(("dim", "channels"), ((*_INPUTS, *_OUTPUTS),)),
    "groups": (("groups",), ("num_features",)),  # a depthwise block may have nothing but a norm on its shortcut
}
"""Attribute of a block -> what its layers call the same; the next only where no layer has that size so named."""


class Remembered(NamedTuple):
    """An attribute of a block that has a size of layers below it.

    Attributes:
        block: the module.
        name: its attribute.
        layers: the layers that have this size, each with the attribute that says it.
    """

    block: nn.Module
    name: str
    layers: Sequence[tuple[nn.Module, str]]


def remembered(model: nn.Module) -> list[Remembered]:
    """All attributes of blocks that say again what their layers say."""
    found = []
    for block in model.modules():
        if isinstance(block, _LAYERS):
            continue
        layers = [layer for layer in block.modules() if isinstance(layer, _LAYERS)] if _names(block) else []
        for name in _names(block) if layers else ():
            size = vars(block)[name]
            same = ([(o, k) for o in layers for k in keys if getattr(o, k, None) == size] for keys in _MEANINGS[name])
            found += [Remembered(block, name, first) for first in [next(filter(None, same), [])] if first]
    return found


def follow(known: Sequence[Remembered], made: Mapping[int, Any]) -> None:
    """Let attributes of a copy follow the sizes of its layers, where all that had one size have one size now.

    Args:
        known: of the network that was cut.
        made: id of its modules -> what took their place, layers with their new sizes; changed in place.
    """
    for block, name, layers in known:
        copied, cut = made.get(id(block)), [(made.get(id(layer)), key) for layer, key in layers]
        if type(copied) is not type(block):  # it is left out
            continue
        sizes = {getattr(layer, key, None) for layer, key in cut}
        if len(sizes) == 1 and None not in sizes:
            object.__setattr__(copied, name, sizes.pop())


def _names(block: nn.Module) -> list[str]:
    return [name for name in _MEANINGS if type(vars(block).get(name)) is int]
