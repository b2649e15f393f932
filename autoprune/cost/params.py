"""Number of parameters; tied tensors count once, buffers (running statistics) not at all."""

from __future__ import annotations

from collections.abc import Iterator

from autoprune.cost.kinked import Kink, Kinked
from autoprune.cost.polynomial import CostFunction, Polynomial
from autoprune.space.groups import SearchSpace, TensorLayout, axis_size
from autoprune.space.sizes import AffineSize


def params(space: SearchSpace) -> CostFunction:
    """Return the function (N, G) widths -> (N,) parameter counts."""
    counted = [(t, sizes) for t, sizes in tensor_sizes(space) if t.kind == "parameter"]
    rest = Polynomial(((1, sizes) for t, sizes in counted if t.name not in space.factored), len(space.groups))
    kinks = [Kink(group, 0.0, factors.per_rank, factors.dense) for group, factors in space.factored.values()]
    return Kinked(rest, kinks) if kinks else rest


def tensor_sizes(space: SearchSpace) -> Iterator[tuple[TensorLayout, list[AffineSize]]]:
    """Every parameter and buffer with its sizes; one that goes with a block has the block's switch as a last factor.

    Of a tensor whose single weights go, what is left is one size.
    """
    switch = {name: AffineSize(0, ((group, 1),)) for name, group in space.presence.tensors.items()}
    for tensor in space.tensors:
        if tensor.name in space.sparse:
            yield tensor, [weights_left(space, tensor.name)]
            continue
        sizes = [
            AffineSize(length) if axis is None else axis_size(axis, space.groups)
            for length, axis in zip(tensor.shape, tensor.axes, strict=True)
        ]
        yield tensor, [*sizes, switch[tensor.name]] if tensor.name in switch else sizes


def weights_left(space: SearchSpace, name: str) -> AffineSize:
    """How many weights are left of a tensor whose single weights go."""
    group, density = space.sparse[name]
    return AffineSize(density.fixed, ((group, density.per_step),))
