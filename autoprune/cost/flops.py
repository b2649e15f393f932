"""FLOPs of one forward pass of the example input: one multiply-add is one FLOP, as fvcore and the papers count.

Convolutions and matrix products count; biases, norms, activations and pooling are zero.
"""

from __future__ import annotations

from autoprune.cost.polynomial import CostFunction, Polynomial
from autoprune.space.groups import SearchSpace


def flops(space: SearchSpace) -> CostFunction:
    """Return the function (N, G) widths -> (N,) multiply-adds."""
    return Polynomial(((op.coefficient, op.sizes) for op in space.operations), len(space.groups))
