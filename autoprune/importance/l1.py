"""Filter weight sum: Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017, section 3.1."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from autoprune.importance.evidence import GroupEvidence, criterion


@criterion("weights", members="filters", single=True)
def l1(evidence: GroupEvidence, rng: np.random.Generator) -> Tensor:
    """(width,) sum of absolute weights of every filter that writes the channel, over all layers of the group."""
    return torch.stack([rows.double().abs().sum(dim=1) for rows in evidence.filters]).sum(dim=0)
