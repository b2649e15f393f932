"""Joint norm of what writes and what reads a channel: Li et al. 2019, OICSR, arXiv 1905.11664, section 3.2.

DepGraph (Fang et al. 2023, arXiv 2301.12900, section 3.3) takes the same norm over all layers of a group.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from autoprune.importance.evidence import GroupEvidence, criterion


@criterion("readers")
def group_norm(evidence: GroupEvidence, rng: np.random.Generator) -> Tensor:
    """(width,) sqrt(‖W_out,i‖² + ‖W_in,i‖²), W_out,i all weights that write channel i, W_in,i all that read it.

    No data, no passes. A reader with several inputs per channel (after a flattening) counts with all of them.
    """
    rows = [*evidence.filters, *evidence.readers]
    return torch.stack([part.double().square().sum(dim=1) for part in rows]).sum(dim=0).sqrt()
