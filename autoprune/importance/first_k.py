"""The first channels: the predefined architectures of Rethinking the Value of Network Pruning, arXiv 1810.05270."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from autoprune.importance.evidence import GroupEvidence, criterion


@criterion("weights", blind=True)
def first_k(evidence: GroupEvidence, rng: np.random.Generator) -> Tensor:
    """(width,) width - index: the first k channels stay. Looks at nothing; no data, no passes."""
    return torch.arange(evidence.width, 0, -1, dtype=torch.float64)
