"""Average percentage of zeros: Hu et al. 2016, Network Trimming, arXiv 1607.03250, equation 1."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from autoprune.importance.evidence import GroupEvidence, criterion


@criterion("activations")
def apoz(evidence: GroupEvidence, rng: np.random.Generator) -> Tensor:
    """(width,) share of values that are not zero, over examples and positions, as the readers of the channel get them.

    The paper prunes where the share of zeros is large. Channels after a function without zeros all score 1.
    """
    assert evidence.activations is not None  # it is asked for
    return 1.0 - evidence.activations.zeros
