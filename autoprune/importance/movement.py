"""Movement pruning: Sanh et al. 2020, arXiv 2005.07683, equation 3.

For whole channels as in block movement pruning: Lagunas et al. 2021, arXiv 2109.04838.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from autoprune.errors import ConfigError, EvaluationError
from autoprune.importance.evidence import criterion
from autoprune.importance.network import NetworkEvidence


@criterion("losses", zeros_last=False, single=True)
def movement(
    network: NetworkEvidence,
    rng: np.random.Generator,
    *,
    steps: int = 20,
    lr: float = 0.01,
    examples: int | None = None,
) -> Tensor:
    """(channels,) -lr · Σ over steps and weights of w · ∂L/∂w, from the least one up.

    Channels whose weights move away from 0 score high. A copy is trained by plain gradient descent on all of its
    weights, batch after batch, batch norms and dropout as in evaluation; the paper accumulates the same sum in scores
    that are trained beside the weights, with masks. The sum may be negative, so its least value over all channels is
    subtracted, which changes no order.

    Labelled data; one forward and one backward pass for each step.

    Args:
        network: the network.
        rng: not used.
        steps: of gradient descent.
        lr: learning rate.
        examples: how many examples to use at most, again and again; None: all.

    Raises:
        ConfigError: a setting out of range.
        EvaluationError: the weights of the copy did not stay finite.
    """
    if steps < 1 or not (math.isfinite(lr) and lr > 0):
        raise ConfigError(f"steps must be at least 1 and lr above 0, got {steps} and {lr}")
    batches, parameters = network.examples(examples), list(network.model.parameters())
    moved = torch.zeros(network.channels, dtype=torch.float64, device=network.slots.device)
    for step in range(steps):
        batch = batches[step % len(batches)]
        loss = network.loss_of(network.run(batch), batch)
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        slopes = {id(p): torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)}
        moved -= lr * network.sums({name: w.detach() * slopes[id(w)] for name, w in network.weights.items()})
        with torch.no_grad():
            for parameter in parameters:
                parameter.sub_(lr * slopes[id(parameter)])
    if not bool(moved.isfinite().all()):
        raise EvaluationError(f"movement: weights did not stay finite in {steps} steps at lr {lr}: lower lr")
    return moved - moved.min() if len(moved) else moved
