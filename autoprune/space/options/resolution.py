"""Resolution beside widths: the same graph, traced at each allowed size of images."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from autoprune.config.space import ResolutionOptions
from autoprune.errors import SpaceError
from autoprune.randomness import untouched
from autoprune.space.copying import copy_network
from autoprune.space.groups import SearchSpace, WidthGroup
from autoprune.space.resolution import RESOLUTION, Resolution
from autoprune.texts import first_line


def resolutions(
    model: nn.Module,
    example: object,
    space: SearchSpace,
    options: ResolutionOptions,
    traced: Callable[[Tensor], SearchSpace],
) -> Resolution:
    """What every product takes at each allowed size.

    Args:
        model: the traced network; only read.
        example: its input.
        space: as it was traced, before anything else was done to it.
        options: which sizes.
        traced: image -> such a space.

    Raises:
        SpaceError: the input is no image, the network does not run at a size or gives outputs of another shape there,
            or its products differ in more than their positions.
    """
    image = example[0] if isinstance(example, tuple) and len(example) == 1 else example
    if not isinstance(image, Tensor) or image.ndim != 4:
        raise SpaceError("resolution: the model's example must be images (N, C, H, W); leave resolution out")
    height, width = image.shape[2:]
    least = max(1, math.ceil(options.min_ratio * height - 1e-9))
    sides = (*(side for side in range(least, height) if side % options.divisor == 0), height)
    found = Resolution((height, width), sides, ())
    if len(sides) == 1:
        raise SpaceError(
            f"resolution: there is no multiple of {options.divisor} from {least} to {height - 1} pixels; lower divisor "
            f"or min_ratio"
        )
    expected, coefficients = _shapes(model, image), []
    for side in sides:
        at = f"at {side} of {height} pixels"
        smaller = F.interpolate(image, size=found.size(side), mode="bilinear", align_corners=False)
        try:
            shapes, there = _shapes(model, smaller), traced(smaller)
        except Exception as error:
            raise SpaceError(
                f"resolution: {type(model).__name__} does not run {at} ({type(error).__name__}: {first_line(error)}); "
                f"raise min_ratio or divisor, or leave resolution out"
            ) from error
        if shapes != expected:
            raise SpaceError(
                f"resolution: {type(model).__name__} gives outputs of {shapes} {at} and of {expected} otherwise; "
                f"leave resolution out"
            )
        if [(op.layer, op.kind, op.sizes) for op in there.operations] != [
            (op.layer, op.kind, op.sizes) for op in space.operations
        ]:
            raise SpaceError(
                f"resolution: {type(model).__name__} has other products {at}; raise min_ratio, or leave resolution out"
            )
        coefficients.append(tuple(op.coefficient for op in there.operations))
    return replace(found, coefficients=tuple(coefficients))


def with_resolution(space: SearchSpace, resolution: Resolution | None) -> SearchSpace:
    """The space with a group of the resolution behind its own.

    Raises:
        SpaceError: networks are cut as their traced graph, which knows one size.
    """
    if resolution is None:
        return space
    if space.form == "graph":
        why = f" ({space.why_graph})" if space.why_graph else ""
        raise SpaceError(
            f"resolution: parts of this model can only be cut as its traced graph, which knows one size{why}; exclude "
            f"the layers that need it, or leave resolution out"
        )
    group = WidthGroup(RESOLUTION, resolution.sides[-1], resolution.sides, kind="resolution")
    return replace(space, groups=(*space.groups, group), resolution=resolution)


def _shapes(model: nn.Module, image: Tensor) -> list[tuple[int, ...]]:
    with untouched(), torch.no_grad():
        outputs = copy_network(model).eval()(image)
    return [tuple(leaf.shape) for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)]
