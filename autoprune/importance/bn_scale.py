"""Batch-norm scales: Liu et al., Learning Efficient Convolutional Networks through Network Slimming, ICCV 2017."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from autoprune.importance.evidence import GroupEvidence, criterion
from autoprune.importance.l2 import l2


@criterion("weights", members="norm_scales")
def bn_scale(evidence: GroupEvidence, rng: np.random.Generator) -> Tensor:
    """(width,) sum of |gamma| over the group's batch norms; a group without one is ranked by `l2`."""
    if not evidence.norm_scales:
        return l2(evidence, rng)
    return torch.stack([scale.double().abs() for scale in evidence.norm_scales]).sum(dim=0)
