"""Layer-adaptive magnitude: Lee et al. 2021, arXiv 2010.07611, equation 4, for channels."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from autoprune.importance.evidence import GroupEvidence, criterion


@criterion("weights", members="filters", single=True)
def lamp(evidence: GroupEvidence, rng: np.random.Generator) -> Tensor:
    """(width,) ‖W_i‖² / Σ ‖W_j‖² over the channels j whose norm is at least that of channel i.

    The paper scores single weights, as a density does; for widths W_i are all weights that write the channel. Inside a
    layer the order is that of `l2`; between layers the strongest channel of each has at least the score 1 / (channels
    that tie with it), so one threshold over all layers never empties one. No data, no passes.
    """
    squares = torch.stack([rows.double().square().sum(dim=1) for rows in evidence.filters]).sum(dim=0)
    ordered = squares.sort().values
    sums = torch.cat([ordered.flip(0).cumsum(0).flip(0), ordered.new_zeros(1)])
    at_least = sums[torch.searchsorted(ordered, squares)]  # of all that are not smaller, equal ones included
    return squares / at_least.clamp(min=torch.finfo(torch.float64).tiny)
