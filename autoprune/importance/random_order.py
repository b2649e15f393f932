"""A random order of channels: the control that every criterion must beat."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from autoprune.importance.evidence import GroupEvidence, criterion


@criterion("weights", blind=True, single=True)
def random_order(evidence: GroupEvidence, rng: np.random.Generator) -> Tensor:
    """(width,) independent uniform numbers."""
    return torch.from_numpy(rng.random(evidence.width))
