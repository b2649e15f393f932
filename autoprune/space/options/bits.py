"""Bits beside widths, or instead of them: each layer's weights are stored as whole numbers of a few bits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatch

import torch
from torch import nn

from autoprune.config.space import BitOptions
from autoprune.errors import SpaceError
from autoprune.space.bits import LayerBits
from autoprune.space.copying import computed_values
from autoprune.space.groups import FrozenPart, SearchSpace, WidthGroup
from autoprune.space.options.density import WeightedLayer, check_patterns, weighted_layers

_FULL = 32
"""Bits of a weight as it is: others than float32 do not hold a scale times a whole number exactly."""


def bit_groups(
    space: SearchSpace, options: BitOptions, refused: Mapping[str, str], exclude: Sequence[str] = ()
) -> tuple[tuple[tuple[WidthGroup, LayerBits], ...], tuple[FrozenPart, ...]]:
    """A group of bits for each layer with weights, and the layers that have none.

    Args:
        space: of widths, as it was traced.
        options: layers, and which numbers of bits are allowed.
        refused: layers that cannot be rounded -> why.
        exclude: shell-style patterns of layers that stay as they are; looked at where there are no widths.

    Raises:
        SpaceError: a pattern matches no layer, or no layer can have bits.
    """
    layers = weighted_layers(space)
    check_patterns(options.layers, "bits.layers", layers)
    exclude = () if options.widths else exclude
    check_patterns(exclude, "exclude", layers)
    made: list[tuple[WidthGroup, LayerBits]] = []
    frozen: list[FrozenPart] = []
    for name, layer in layers.items():
        pattern = next((p for p in exclude if fnmatch(name, p)), None)
        found = _layer(f"{name}:bits" if options.widths else name, layer)
        choices = tuple(bits for bits in options.choices if found.stored(bits) < found.stored(_FULL))
        if pattern is not None:
            reason = f"excluded by {pattern!r}"
        elif not any(fnmatch(name, p) for p in options.layers):
            reason = "bits.layers does not name it"
        elif name in refused:
            reason = refused[name]
        elif layer.several:
            reason = "it has several weights"
        else:
            reason = "" if choices else "scales would take what bits save"
        if reason:
            frozen.append(FrozenPart(name, layer.outputs, f"bits: {reason}" if options.widths else reason))
            continue
        group = WidthGroup(found.group, found.full, (*choices, found.full), (name,), kind="bits")
        made.append((group, found))
    if not made:
        reasons = "; ".join(sorted({f"{part.name}: {part.reason}" for part in frozen})[:3])
        raise SpaceError(f"no layer of this model can have bits ({reasons or 'it has no layers with weights'})")
    return tuple(made), tuple(frozen)


def bit_space(
    space: SearchSpace, made: Sequence[tuple[WidthGroup, LayerBits]], frozen: Sequence[FrozenPart]
) -> SearchSpace:
    """The space of bits alone, in which all widths are full."""
    whole = tuple(replace(tensor, axes=(None,) * len(tensor.shape)) for tensor in space.tensors)
    operations = tuple(
        replace(op, coefficient=op.coefficient * math.prod(size(space.full) for size in op.sizes), sizes=())
        for op in space.operations
    )
    return with_bits(SearchSpace((), tuple(frozen), operations, whole, space.notes), made)


def with_bits(space: SearchSpace, made: Sequence[tuple[WidthGroup, LayerBits]]) -> SearchSpace:
    """The space with groups of bits behind its own."""
    groups, bits = (*space.groups, *(group for group, _ in made)), tuple(layer for _, layer in made)
    return replace(space, groups=groups, bits=bits) if made else space


def unroundable(model: nn.Module) -> dict[str, str]:
    """Path of each module whose weights cannot be rounded in place -> why."""
    found = {}
    for name, module in model.named_modules(remove_duplicate=False):
        other = next((p.dtype for p in module._parameters.values() if p is not None and p.dtype != torch.float32), None)
        if other is not None:
            found[name] = f"its weights are {str(other).removeprefix('torch.')}, not float32"
        elif any(computed_values(module)):
            found[name] = "its weights are computed by a hook"
    return found


def _layer(group: str, layer: WeightedLayer) -> LayerBits:
    return LayerBits(group, layer.tensor.name, layer.tensor.shape, _FULL, 1 - layer.reads)
