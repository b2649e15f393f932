"""FLOPs of one forward pass of the example input: one multiply-add is one FLOP, as fvcore and the papers count.

Convolutions and matrix products count; biases, norms, activations and pooling are zero.
"""

from __future__ import annotations

from autoprune.cost.kinked import Kink, Kinked
from autoprune.cost.polynomial import CostFunction, Polynomial
from autoprune.cost.sized import AtEachSize
from autoprune.space.groups import SearchSpace
from autoprune.space.resolution import RESOLUTION


def flops(space: SearchSpace) -> CostFunction:
    """Return the function (N, G) widths -> (N,) multiply-adds."""
    if space.resolution is not None:
        sides, names = space.resolution.sides, [group.name for group in space.groups]
        each = [
            Polynomial(((n, op.sizes) for n, op in zip(row, space.operations, strict=True)), len(space.groups))
            for row in space.resolution.coefficients
        ]
        return AtEachSize(names.index(RESOLUTION), sides, each)
    layers = {factors.layer for factors in space.factors}
    products = [op for op in space.operations if op.layer not in layers or op.kind not in ("conv", "linear")]
    rest = Polynomial(((op.coefficient, op.sizes) for op in products), len(space.groups))
    kinks = [Kink(g, 0.0, f.uses * f.per_rank, f.uses * f.dense) for g, f in space.factored.values()]
    return Kinked(rest, kinks) if kinks else rest
