"""Number of parameters; tied tensors count once, buffers (running statistics) not at all."""

from __future__ import annotations

from autoprune.cost.polynomial import CostFunction, Polynomial
from autoprune.space.groups import SearchSpace, axis_size
from autoprune.space.sizes import AffineSize


def params(space: SearchSpace) -> CostFunction:
    """Return the function (N, G) widths -> (N,) parameter counts."""
    switch = {name: AffineSize(0, ((g, 1),)) for g, block in space.switches.items() for name in block.tensors}
    terms: list[tuple[int, list[AffineSize]]] = []
    for tensor in space.tensors:
        if tensor.kind == "parameter":
            sizes = [
                AffineSize(length) if axis is None else axis_size(axis, space.groups)
                for length, axis in zip(tensor.shape, tensor.axes, strict=True)
            ]
            terms.append((1, [*sizes, switch[tensor.name]] if tensor.name in switch else sizes))
    return Polynomial(terms, len(space.groups))
