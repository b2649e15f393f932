"""Greedy selection by the next layer's output: Luo et al. 2017, ThiNet, arXiv 1707.06342, equation 6, algorithm 1."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from autoprune.importance.contributions import contribution_gram
from autoprune.importance.evidence import GroupEvidence, criterion


@criterion("moments", members="moments")
def thinet(evidence: GroupEvidence, rng: np.random.Generator) -> Tensor:
    """(width,) share of the channels that went before: the order in which a greedy search removes them.

    The set T of removed channels is to have the least E[Σ_o (Σ_{j in T} x_oj)²], x_oj what channel j contributes to
    output o of a weight that reads the group; the channel that adds least goes next. With G_ij = E[Σ_o x_oi x_oj] the
    error of T is the sum of G over T × T, so the sampled contributions of the paper are never formed; all readers of a
    group count together. One order serves all widths, and only the order has a meaning.

    Unlabelled data, two passes for all groups; at most 32 sampled positions of each example (the paper: 10 images per
    class, 10 positions each). Then width² steps on the (width, width) matrix.
    """
    assert evidence.moments is not None  # it is asked for
    gram = contribution_gram(evidence.moments, evidence.width)
    order = torch.zeros(evidence.width, dtype=torch.float64, device=gram.device)
    added = gram.diagonal().clone()  # what each channel adds to the error of the removed set
    for step in range(evidence.width):
        channel = int(added.argmin())
        order[channel] = step / evidence.width
        added += 2 * gram[channel]
        added[channel] = torch.inf
    return order
