"""Small hand-made spaces for tests of controllers and allocations: no model, no tracing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoprune.space.groups import AxisLayout, SearchSpace, TensorLayout, WidthGroup
from autoprune.space.sizes import AffineSize, Operation


def chain_space(widths: Sequence[int], *, levels: int | None = None) -> SearchSpace:
    """A chain of 3x3 convolutions on 8x8 maps, 3 channels in and a 10-way linear layer at the end.

    Args:
        widths: full width of each group.
        levels: number of evenly spaced choices per group; None allows every width from 1.
    """
    groups, operations, tensors = [], [], []
    previous = AffineSize(3)
    layout: AxisLayout | None = None
    for index, width in enumerate(widths):
        steps = range(1, (levels or width) + 1)
        choices = sorted({max(1, width * step // (levels or width)) for step in steps})
        name = f"conv{index}"
        groups.append(WidthGroup(name, width, tuple(choices), (name,)))
        size = AffineSize(0, ((index, 1),))
        operations.append(Operation(name, "conv", 9 * 64, (size, previous)))
        axis = AxisLayout(np.full(width, index), np.arange(width))
        fan_in = 3 if layout is None else len(layout.group)
        tensors.append(
            TensorLayout(f"{name}.weight", (width, fan_in, 3, 3), "parameter", (axis, layout, None, None), reads=(1,))
        )
        previous, layout = size, axis
    operations.append(Operation("fc", "linear", 1, (AffineSize(10), previous)))
    tensors.append(TensorLayout("fc.weight", (10, widths[-1]), "parameter", (None, layout), reads=(1,)))
    return SearchSpace(tuple(groups), (), tuple(operations), tuple(tensors))
