"""Filter pruning via geometric median: He et al. 2019, arXiv 1811.00250, equations 4 to 9."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from autoprune.importance.evidence import GroupEvidence, criterion


@criterion("weights", zeros_last=False, members="filters")
def fpgm(evidence: GroupEvidence, rng: np.random.Generator) -> Tensor:
    """(width,) sum over j of ‖W_i - W_j‖₂: the filters nearest to all others go first, as they can be replaced by them.

    A filter is all weights that write the channel, over all layers of the group. (Torch-Pruning takes the distance of
    squared weights instead.) No data, no passes; equal filters tie, and a filter of zeros need not be the last.
    """
    filters = torch.cat([rows.double() for rows in evidence.filters], dim=1)
    return torch.cdist(filters, filters, compute_mode="donot_use_mm_for_euclid_dist").sum(dim=1)
