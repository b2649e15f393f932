"""Optimal brain damage: LeCun, Denker & Solla 1990, Advances in Neural Information Processing Systems 2, equation 5."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from autoprune.importance.curvature import Matrix, block_traces
from autoprune.importance.evidence import criterion
from autoprune.importance.network import NetworkEvidence


@criterion("losses")
def obd(
    network: NetworkEvidence,
    rng: np.random.Generator,
    *,
    matrix: Matrix = "gauss_newton",
    probes: int = 50,
    examples: int | None = 128,
) -> Tensor:
    """(channels,) Σ h_kk w_k² / 2 over the weights that write the channel, h the diagonal of second derivatives.

    The diagonal is estimated by Hutchinson with probes scaled by the weights, sign times w, so that what is estimated
    is the sum itself; sums below 0 become 0. By default h is that of the Gauss-Newton matrix, which has no negative
    diagonal and is what the paper's own recursion computes (it drops second derivatives of the activation functions).

    Labelled data and a network near a minimum of its loss. For each batch one forward pass, and for each probe 3
    backward passes (`gauss_newton`) or 1 through the backward pass (`hessian`): at most probes × examples / batch size
    times.

    Args:
        network: the network.
        rng: what probes are drawn from.
        matrix: "gauss_newton" or "hessian".
        probes: for each batch; the error falls with the root of their number.
        examples: how many examples to use at most; None: all.

    Raises:
        ConfigError: a number below 1, or an operator that cannot be differentiated twice.
    """
    traces = block_traces(network, rng, probes=probes, examples=examples, matrix=matrix, scaled=True)
    return traces.clamp(min=0) / 2
