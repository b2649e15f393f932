"""Group norm: Fang et al., DepGraph: Towards Any Structural Pruning, CVPR 2023, section 3.3, over writing layers."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from autoprune.importance.evidence import GroupEvidence, criterion


@criterion("weights", members="filters", single=True)
def l2(evidence: GroupEvidence, rng: np.random.Generator) -> Tensor:
    """(width,) Euclidean norm of all weights that write the channel, over all layers of the group."""
    return torch.stack([rows.double().square().sum(dim=1) for rows in evidence.filters]).sum(dim=0).sqrt()
