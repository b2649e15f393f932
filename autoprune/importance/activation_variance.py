"""Variance of activations: Polyak & Wolf 2015, Channel-Level Acceleration of Deep Face Representations, IEEE Access 3.

The choice of channels of its "Reduce and Reuse".
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from autoprune.importance.evidence import GroupEvidence, criterion


@criterion("activations")
def activation_variance(evidence: GroupEvidence, rng: np.random.Generator) -> Tensor:
    """(width,) variance, over examples and positions, of what the readers of the channel get; constants go first.

    Unlabelled data, one pass for all groups. A constant channel is no loss where the next bias takes it over.
    """
    assert evidence.activations is not None  # it is asked for
    return evidence.activations.variance
