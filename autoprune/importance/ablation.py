"""The oracle, a measured change of the loss without a channel: Molchanov et al. 2017, arXiv 1611.06440, equation 3."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from autoprune.importance.evidence import criterion
from autoprune.importance.network import NetworkEvidence


@criterion("losses")
def ablation(
    network: NetworkEvidence, rng: np.random.Generator, *, examples: int | None = 256, signed: bool = False
) -> Tensor:
    """(channels,) |L without the channel - L|, L the mean loss: what other criteria with a loss approximate.

    The channel's gate is 0 for all that read it. Labelled data. One forward pass over the examples for each channel and
    one more, small batches being repeated so that several channels share a pass: channels × examples in all.

    Args:
        network: the network.
        rng: not used.
        examples: how many examples to use at most; None: all.
        signed: tell a loss that falls from one that rises: the change itself, from the least one up.

    Raises:
        ConfigError: examples below 1.
        EvaluationError: channels whose readers cannot be seen.
    """
    whole = network.gated_losses(network.ones()[None], examples)
    without = torch.cat([network.gated_losses(network.closed(channels), examples) for channels in network.in_turn()])
    change = without - whole
    return change - change.min() if signed else change.abs()
