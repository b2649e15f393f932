"""Hessian-aware pruning: Yu et al. 2022, arXiv 2101.08940, equation 9."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from autoprune.importance.curvature import Matrix, block_traces
from autoprune.importance.evidence import criterion
from autoprune.importance.network import NetworkEvidence


@criterion("losses")
def hap(
    network: NetworkEvidence,
    rng: np.random.Generator,
    *,
    probes: int = 300,
    examples: int | None = 128,
    matrix: Matrix = "hessian",
) -> Tensor:
    """(channels,) Tr(H_ii) / (2 p_i) · ‖w_i‖², H_ii the Hessian's block of the p_i weights that write the channel.

    The trace is Hutchinson's, with random signs for all weights at once; traces below 0 become 0. The authors compare
    scores over all layers with one threshold.

    Labelled data and a network near a minimum of its loss. For each batch one forward and one backward pass, and for
    each probe one more through the backward pass: at most probes × examples / batch size times.

    Args:
        network: the network.
        rng: what probes are drawn from.
        probes: for each batch; 300 in the authors' code.
        examples: how many examples to use at most; None: all.
        matrix: "hessian", or "gauss_newton", whose traces are never negative.

    Raises:
        ConfigError: a number below 1, or an operator that cannot be differentiated twice.
    """
    traces = block_traces(network, rng, probes=probes, examples=examples, matrix=matrix, scaled=False).clamp(min=0)
    weights = network.weights
    norms = network.sums({name: weight.detach().square() for name, weight in weights.items()})
    numbers = network.sums({name: weight.detach().new_ones(weight.shape) for name, weight in weights.items()})
    return traces / (2 * numbers.clamp(min=1)) * norms
