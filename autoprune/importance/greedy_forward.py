"""Greedy forward selection: Ye et al. 2020, Good Subnetworks Provably Exist, arXiv 2003.01794, algorithm 1."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from autoprune.errors import ConfigError
from autoprune.importance.evidence import criterion
from autoprune.importance.network import NetworkEvidence


@criterion("losses", zeros_last=False)
def greedy_forward(
    network: NetworkEvidence,
    rng: np.random.Generator,
    *,
    examples: int | None = 64,
    candidates: int | None = 8,
) -> Tensor:
    """(channels,) lowest mean loss reached before the channel was added, above the lowest one of all.

    Group by group, the others whole: all channels are gated to 0, then the one that lowers the loss most is added,
    again and again. The paper adds with replacement and rescales by the number of channels; a cut network does not, so
    gates are 0 or 1 here. Before the loss first rises scores fall from channel to channel; after the lowest loss they
    fall by next to nothing, in the order of adding.

    Labelled data. For each channel of a group one forward and backward pass over the examples where candidates are
    chosen by gradient, and one forward pass for each of them; with None, width² / 2 forward passes for each group.

    Args:
        network: the network.
        rng: not used.
        examples: how many examples to use at most; None: all.
        candidates: how many channels to try at each step, those whose gate has the most negative gradient; None: all.

    Raises:
        ConfigError: a number below 1.
        EvaluationError: channels whose readers cannot be seen.
    """
    if candidates is not None and candidates < 1:
        raise ConfigError(f"candidates must be at least 1, or null for all, got {candidates}")
    scores = torch.zeros(network.channels, dtype=torch.float64)
    for part in network.sets:
        order, losses = _added(network, part, examples, candidates)
        lowest = torch.cummin(losses, dim=0).values
        above = lowest[:-1] - lowest[-1]
        falling = torch.arange(len(order), 0, -1, dtype=torch.float64) / len(order)
        scores[part.start + order] = above + 1e-9 * max(float(above[0]), 1e-300) * falling
    return scores


def _added(
    network: NetworkEvidence, part: slice, examples: int | None, candidates: int | None
) -> tuple[Tensor, Tensor]:
    """(width,) channels of one set in the order in which they are added, and (width + 1,) the losses on the way."""
    gates = network.ones()
    gates[part] = 0.0
    left = list(range(part.stop - part.start))
    order: list[int] = []
    losses = [float(network.gated_losses(gates[None], examples)[0])]
    while left:
        tried = left
        if candidates is not None and candidates < len(left):
            slopes = _slopes(network, gates, examples)[part]
            tried = sorted(left, key=lambda channel: float(slopes[channel]))[:candidates]
        rows = gates.repeat(len(tried), 1)
        rows[torch.arange(len(tried)), part.start + torch.tensor(tried)] = 1.0
        found = network.gated_losses(rows, examples)
        best = int(found.argmin())
        order.append(tried[best])
        losses.append(float(found[best]))
        gates[part.start + tried[best]] = 1.0
        left = [channel for channel in left if channel != tried[best]]
    return torch.tensor(order), torch.tensor(losses, dtype=torch.float64)


def _slopes(network: NetworkEvidence, gates: Tensor, examples: int | None) -> Tensor:
    """(channels,) derivative of the mean loss by each gate."""
    batches = network.examples(examples)
    total = torch.stack([network.gate_gradients(batch, gates).sum(dim=0) for batch in batches]).sum(dim=0)
    return total / sum(batch.number for batch in batches)
