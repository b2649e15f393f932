"""Densities instead of widths: each layer keeps its shape and loses single weights, in a pattern."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatch
from typing import final

from autoprune.config.space import DensityOptions
from autoprune.errors import SpaceError, suggest
from autoprune.space.density import LayerDensity
from autoprune.space.groups import FrozenPart, SearchSpace, TensorLayout, WidthGroup
from autoprune.space.sizes import AffineSize, Operation

_UNNAMED = "density.layers does not name it"


def density_space(space: SearchSpace, options: DensityOptions, exclude: Sequence[str] = ()) -> SearchSpace:
    """The space of densities of a traced model, in which all widths are full.

    Every convolution and linear layer gets a density whose weights are all multiplied equally often, which costs need.

    Args:
        space: of widths, as it was traced.
        options: pattern, layers, steps.
        exclude: shell-style patterns of layers that stay dense.

    Raises:
        SpaceError: a pattern matches no layer, or no layer can lose weights in this pattern.
    """
    layers = weighted_layers(space)
    check_patterns(options.layers, "density.layers", layers)
    check_patterns(exclude, "exclude", layers)
    groups: list[WidthGroup] = []
    densities: list[LayerDensity] = []
    frozen: list[FrozenPart] = []
    for name, layer in layers.items():
        pattern = next((p for p in exclude if fnmatch(name, p)), None)
        if pattern is not None:
            reason = f"excluded by {pattern!r}"
        elif not any(fnmatch(name, p) for p in options.layers):
            reason = _UNNAMED
        else:
            reason = layer.problem(options)
        if reason:
            frozen.append(FrozenPart(name, layer.outputs, reason))
            continue
        density = layer.density(name, options)
        densities.append(density)
        groups.append(_group(density, options, layer.uses))
    if not groups:
        named = [part for part in frozen if part.reason != _UNNAMED] or frozen
        reasons = "; ".join(sorted({f"{part.name}: {part.reason}" for part in named})[:3])
        raise SpaceError(f"no layer of this model can have a density ({reasons or 'it has no layers with weights'})")
    whole = tuple(replace(tensor, axes=(None,) * len(tensor.shape)) for tensor in space.tensors)
    return SearchSpace(
        tuple(groups),
        tuple(frozen),
        _operations(space, {d.group: (i, d) for i, d in enumerate(densities)}, layers),
        whole,
        space.notes,
        densities=tuple(densities),
    )


@final
class WeightedLayer:
    """A layer with weights, and the products that use them."""

    def __init__(self, tensors: Sequence[TensorLayout], products: Sequence[int]) -> None:
        self.tensor, self.products = tensors[0], products
        self.several = len(tensors) > 1
        self.reads = 0 if self.tensor.reads == (0,) else 1
        self.outputs = self.tensor.shape[1 - self.reads]
        self.inputs = self.tensor.shape[self.reads]
        self.uses = sum(products) // math.prod(self.tensor.shape)

    def uneven(self) -> str:
        """Why costs cannot tell what one of its weights takes; empty where they can."""
        number = math.prod(self.tensor.shape)
        if self.several:
            return "it has several weights"
        whole = all(product % number == 0 for product in self.products)
        if sum(self.products) % number or not (whole or len(set(self.products)) == 1):
            return "its weights are not all multiplied equally often"
        return ""

    def problem(self, options: DensityOptions) -> str:
        """Why it stays dense; empty where it need not."""
        number, of = math.prod(self.tensor.shape), options.kept_of
        if self.uneven():
            return self.uneven()
        if of is not None and self.inputs % of[1]:
            return f"its {self.inputs} inputs are no multiple of {of[1]}"
        outputs, inputs = options.block
        if self.outputs % outputs or self.inputs % inputs:
            return f"blocks of {options.pattern} do not divide its {self.outputs} outputs and {self.inputs} inputs"
        if of is None and number // (outputs * inputs) < 2:
            return "it has only one weight"
        return ""

    def density(self, name: str, options: DensityOptions) -> LayerDensity:
        """What its density is."""
        number, (outputs, inputs), of = math.prod(self.tensor.shape), options.block, options.kept_of
        units, rows = number // (outputs * inputs), 1
        if of is not None:
            rows = number // of[1]
        elif options.compare == "output":
            rows = self.outputs // outputs
        steps = _steps(units, options.steps) if of is None else of[1]
        shape, block = self.tensor.shape, options.block
        return LayerDensity(name, self.tensor.name, shape, steps, self.reads, block, rows, options.pattern)


def _steps(units: int, most: int) -> int:
    """As many steps as there may be that leave over no more units than one step has: the first step takes those."""
    return next(n for n in range(min(most, units), 0, -1) if units % n <= units // n)


def weighted_layers(space: SearchSpace) -> dict[str, WeightedLayer]:
    """Name -> layer, in the order of their first products; weights that nobody multiplies with are none."""
    weights: dict[str, list[TensorLayout]] = defaultdict(list)
    for tensor in space.tensors:
        if tensor.kind == "parameter" and len(tensor.shape) > 1:
            for owner in dict.fromkeys(_owner(name) for name in (tensor.names or (tensor.name,))):
                weights[owner].append(tensor)
    products: dict[str, list[int]] = defaultdict(list)
    for operation in space.operations:
        if operation.kind in ("conv", "linear") and operation.layer in weights:
            products[operation.layer].append(_total(space, operation))
    return {name: WeightedLayer(weights[name], found) for name, found in products.items()}


def _owner(name: str) -> str:
    return name.rpartition(".")[0] or name


def _total(space: SearchSpace, operation: Operation) -> int:
    return operation.coefficient * math.prod(size(space.full) for size in operation.sizes)


def _group(density: LayerDensity, options: DensityOptions, uses: int) -> WidthGroup:
    steps, of = density.steps, options.kept_of
    if of is not None and of[0] is not None:
        choices: tuple[int, ...] = (of[0], steps)
    else:
        number = density.kept(steps)
        choices = tuple(w for w in range(1, steps) if density.kept(w) >= options.min_density * number)
        choices = (*choices, steps)
    sets = (density.units,)
    return WidthGroup(density.group, steps, choices, (density.group,), False, "weights", uses, sets, density.rows)


def _operations(
    space: SearchSpace, of_layer: dict[str, tuple[int, LayerDensity]], layers: dict[str, WeightedLayer]
) -> tuple[Operation, ...]:
    """All products, those with weights that go as often as each weight is multiplied."""
    made, counted = [], set[str]()
    for operation in space.operations:
        total, name = _total(space, operation), operation.layer
        if name not in of_layer or operation.kind not in ("conv", "linear"):
            made.append(replace(operation, coefficient=total, sizes=()))
            continue
        group, density = of_layer[name]
        number = math.prod(density.shape)
        left = (AffineSize(density.fixed, ((group, density.per_step),)),)
        if total % number == 0:
            made.append(replace(operation, coefficient=total // number, sizes=left))
        elif name not in counted:  # projections that share a weight, each with a part of it
            made.append(replace(operation, coefficient=layers[name].uses, sizes=left))
            counted.add(name)
    return tuple(made)


def check_patterns(patterns: Sequence[str], option: str, layers: dict[str, WeightedLayer]) -> None:
    """Check that every pattern matches a layer; raises SpaceError."""
    for pattern in patterns:
        if not any(fnmatch(name, pattern) for name in layers):
            known = ", ".join(list(layers)[:6]) + (", …" if len(layers) > 6 else "")
            raise SpaceError(
                f"{option}: {pattern!r} matches no layer with weights; there are {known}.{suggest(pattern, layers)}"
            )
