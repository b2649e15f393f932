"""Ranks instead of widths: each layer becomes the product of two of lower rank, or stays as it is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatch

from torch import Tensor, nn

from autoprune.config.space import RankOptions
from autoprune.errors import SpaceError
from autoprune.space.factors import LayerFactors
from autoprune.space.groups import FrozenPart, SearchSpace, WidthGroup
from autoprune.space.options.density import check_patterns, weighted_layers

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def rank_space(
    space: SearchSpace, options: RankOptions, refused: Mapping[str, str], exclude: Sequence[str] = ()
) -> SearchSpace:
    """The space of ranks of a traced model, in which all widths are full.

    Args:
        space: of widths, as it was traced.
        options: layers and how finely ranks are searched.
        refused: layers that cannot be replaced -> why.
        exclude: shell-style patterns of layers that stay as they are.

    Raises:
        SpaceError: a pattern matches no layer, or no layer has a rank that is cheaper than itself.
    """
    layers = weighted_layers(space)
    check_patterns(options.layers, "rank.layers", layers)
    check_patterns(exclude, "exclude", layers)
    groups: list[WidthGroup] = []
    factors: list[LayerFactors] = []
    frozen: list[FrozenPart] = []
    for name, layer in layers.items():
        found = LayerFactors(name, name, layer.tensor.name, layer.tensor.shape, layer.uses)
        pattern = next((p for p in exclude if fnmatch(name, p)), None)
        if pattern is not None:
            reason = f"excluded by {pattern!r}"
        elif not any(fnmatch(name, p) for p in options.layers):
            reason = "rank.layers does not name it"
        elif name in refused:
            reason = refused[name]
        else:
            reason = layer.uneven() or ("" if found.highest else "two factors of rank 1 have no fewer weights")
        if reason:
            frozen.append(FrozenPart(name, layer.outputs, reason))
            continue
        factors.append(found)
        groups.append(WidthGroup(name, found.highest + 1, _choices(found, options), (name,), kind="ranks"))
    if not groups:
        reasons = "; ".join(sorted({f"{part.name}: {part.reason}" for part in frozen})[:3])
        raise SpaceError(f"no layer of this model can have a lower rank ({reasons or 'it has no layers with weights'})")
    whole = tuple(replace(tensor, axes=(None,) * len(tensor.shape)) for tensor in space.tensors)
    operations = tuple(
        replace(op, coefficient=op.coefficient * math.prod(size(space.full) for size in op.sizes), sizes=())
        for op in space.operations
    )
    return SearchSpace(tuple(groups), tuple(frozen), operations, whole, space.notes, factors=tuple(factors))


def refusals(model: nn.Module) -> dict[str, str]:
    """Path of each module with weights that two layers cannot take the place of -> why."""
    owners: dict[int, int] = {}
    for _, parameter in model.named_parameters(remove_duplicate=False):
        owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    found = {}
    for name, module in model.named_modules(remove_duplicate=False):
        weight = getattr(module, "weight", None)
        if not isinstance(weight, Tensor):
            continue
        if type(module) not in (*_CONVOLUTIONS, nn.Linear):
            found[name] = f"a {type(module).__name__} is no plain convolution or linear layer"
        elif getattr(module, "groups", 1) != 1:
            found[name] = "it is a grouped convolution"
        elif owners.get(id(weight), 0) != 1:
            found[name] = "its weights are shared, or computed by a hook"
        elif module._forward_hooks or module._forward_pre_hooks:
            found[name] = "it has hooks"
        elif not name:
            found[name] = "it is the model itself"
    return found


def _choices(found: LayerFactors, options: RankOptions) -> tuple[int, ...]:
    step = math.ceil(found.highest / options.steps)
    least = max(1, math.ceil(options.min_ratio * found.highest))
    return (*(r for r in range(step, found.highest + 1, step) if r >= least), found.highest + 1)
