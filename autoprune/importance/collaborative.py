"""Collaborative channel pruning: Peng et al. 2019, ICML, PMLR 97, sections 3.2 and 3.3."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from autoprune.importance.evidence import criterion
from autoprune.importance.network import NetworkEvidence


@criterion("losses")
def collaborative(network: NetworkEvidence, rng: np.random.Generator, *, examples: int | None = 1024) -> Tensor:
    """(channels,) predicted rise of the loss, ½ rᵀSr, once the channel and all that matter less are removed.

    S_ij = mean over examples of g_i g_j, g the derivative of the example's own loss by the channels' gates: the
    empirical Fisher information of gates, so S is the paper's matrix of pairwise second-order terms wᵢᵀH_ij w_j with
    its estimate of H from first derivatives. The paper minimises rᵀSr over 0/1 vectors r of a given number of removals;
    here the programme is solved greedily, from the first removal to the last, so that one order serves every width:
    each step removes the channel with the least S_ii / 2 + Σ_j S_ij over those removed. Scores never fall along that
    order: the largest rise so far.

    Labelled data and a network near a minimum of its loss (the first-order term is left out, as there). One forward and
    one backward pass for each batch; memory for examples × channels and width² numbers; time width² for each group.

    Args:
        network: the network.
        rng: not used.
        examples: how many examples to use at most; None: all.

    Raises:
        ConfigError: examples below 1.
        EvaluationError: channels whose readers cannot be seen.
    """
    gradients = torch.cat([network.gate_gradients(batch) for batch in network.examples(examples)])
    scores = torch.zeros(network.channels, dtype=torch.float64)
    for part in network.sets:
        of_set = gradients[:, part]
        order, rises = removal_order(of_set.T @ of_set / len(of_set))
        scores[part.start + order] = _rising(rises)
    return scores


def removal_order(pairs: Tensor) -> tuple[Tensor, Tensor]:
    """Channels in the order in which they are removed, and the predicted rise of the loss after each removal.

    Args:
        pairs: (n, n) symmetric second-order terms.
    """
    marginal = pairs.diagonal().clone() / 2
    order, rises, rise = [], [], 0.0
    for _ in range(len(pairs)):
        channel = int(marginal.argmin())
        rise += float(marginal[channel])
        order.append(channel)
        rises.append(rise)
        marginal += pairs[channel]
        marginal[channel] = torch.inf
    return torch.tensor(order, dtype=torch.long), torch.tensor(rises, dtype=torch.float64)


def _rising(rises: Tensor) -> Tensor:
    """The largest so far, each a little above the one before, at least 0."""
    values, last = [], 0.0
    for rise in rises.tolist():
        last = max(rise, last * (1 + 1e-9))
        values.append(last)
    return torch.tensor(values, dtype=torch.float64)
