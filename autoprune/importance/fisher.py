"""Fisher pruning: Theis et al. 2018, Faster gaze prediction with dense networks, arXiv 1801.05787, equation 7."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from autoprune.importance.evidence import GroupEvidence, criterion


@criterion("curvature")
def fisher(evidence: GroupEvidence, rng: np.random.Generator) -> Tensor:
    """(width,) half the mean over examples of (sum over positions of activation x gradient) squared.

    The sum runs over all that read the channel; the gradient is that of the example's own loss.
    """
    assert evidence.curvature is not None  # it is asked for
    return evidence.curvature.gates / 2
