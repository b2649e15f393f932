"""Gradient signal preservation: Wang et al. 2020, GraSP, arXiv 2002.07376, equation 8, for channels."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from autoprune.errors import ConfigError
from autoprune.importance.derivatives import gradient, products
from autoprune.importance.evidence import criterion
from autoprune.importance.network import NetworkEvidence


@criterion("losses", zeros_last=False, single=True)
def grasp(
    network: NetworkEvidence, rng: np.random.Generator, *, temperature: float = 200.0, examples: int | None = 128
) -> Tensor:
    """(channels,) Σ w · (Hg) over the weights that write the channel, from the least one up; g gradient, H Hessian.

    To first order, removing the channel changes the squared norm of the gradient by twice S = -Σ w · (Hg). The paper
    removes the weights of largest S, whose removal keeps or raises it; so -S is the importance. It may be negative, so
    its least value over all channels is subtracted, which changes no order, in a group or over all.

    Labelled data; meant for networks before training. Two forward and three backward passes for each batch, one of them
    through a backward pass.

    Args:
        network: the network.
        rng: not used.
        temperature: floating outputs are divided by it before the loss: logits of a cross entropy; 1 for other losses.
        examples: how many examples to use at most; None: all.

    Raises:
        ConfigError: a number out of range, or an operator that cannot be differentiated twice.
    """
    if not (math.isfinite(temperature) and temperature > 0):
        raise ConfigError(f"temperature must be above 0, got {temperature}")
    batches, weights = network.examples(examples), network.weights
    whole = sum(batch.number for batch in batches)
    mean = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for batch in batches:
        for name, found in gradient(network, batch, temperature=temperature).items():
            mean[name] += found * (batch.number / whole)
    kept = torch.zeros(network.channels, dtype=torch.float64, device=network.slots.device)
    for batch in batches:
        turned = products(network, batch, temperature=temperature)(mean)
        kept += network.sums({name: w.detach() * turned[name] for name, w in weights.items()}) * batch.number / whole
    return kept - kept.min() if len(kept) else kept
