"""Optimal brain damage: LeCun, Denker & Solla 1990, Advances in Neural Information Processing Systems 2, equation 5."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from autoprune.importance.curvature import block_traces
from autoprune.importance.derivatives import Matrix
from autoprune.importance.evidence import criterion
from autoprune.importance.network import NetworkEvidence


@criterion("losses", single=True)
def obd(
    network: NetworkEvidence,
    rng: np.random.Generator,
    *,
    matrix: Matrix = "gauss_newton",
    probes: int = 50,
    examples: int | None = 128,
) -> Tensor:
    """(channels,) Σ h_kk w_k² / 2 over the weights that write the channel, h the diagonal of second derivatives.

    By default h is the diagonal of the Gauss-Newton matrix, which is never negative and is what the paper's own
    recursion leaves (it drops second derivatives of the functions inside; ReLUs have none), from random signs over the
    outputs. With `hessian` it is Hutchinson's estimate, with signs times w as probes; sums below 0 become 0, and its
    error is far larger (see `curvature.block_traces`).

    Labelled data and a network near a minimum of its loss. For each batch one forward pass, and for each probe one
    backward pass (`gauss_newton`), or one through the backward pass (`hessian`): probes × examples / batch size in all.

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
