"""Connection sensitivity: Lee et al. 2019, SNIP, arXiv 1810.02340, equation 5, for channels."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from autoprune.importance.evidence import criterion
from autoprune.importance.members import GroupEvidence


@criterion("gradients", single=True)
def snip(evidence: GroupEvidence, rng: np.random.Generator) -> Tensor:
    """(width,) |Σ w · ∂L/∂w| over the weights that write the channel, L the mean loss over all batches.

    The paper's |w · ∂L/∂w| is |∂L/∂c| for a factor c of one weight; this is the same for one factor of the whole
    channel. Its division by the sum over all weights changes no order and is left out. Labelled data; one forward and
    one backward pass for each batch. Meant for networks before training.
    """
    assert evidence.gradients is not None  # it is asked for
    return torch.stack([rows.sum(dim=1) for rows in evidence.gradients.weights]).sum(dim=0).abs()
