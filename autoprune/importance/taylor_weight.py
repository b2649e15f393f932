"""First-order Taylor on weights: Molchanov et al. 2019, arXiv 1906.10771, equation 8."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from autoprune.importance.evidence import GroupEvidence, criterion


@criterion("gradients", members="filters", single=True)
def taylor_weight(evidence: GroupEvidence, rng: np.random.Generator) -> Tensor:
    """(width,) sum over the weights that write the channel of (gradient x weight) squared, averaged over batches."""
    assert evidence.gradients is not None  # it is asked for
    return torch.stack([rows.sum(dim=1) for rows in evidence.gradients.weight_squares]).sum(dim=0)
