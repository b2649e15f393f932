"""Variance of contributions: Polyak & Wolf 2015, Channel-Level Acceleration of Deep Face Representations.

Its "inbound pruning" drops single pairs of input channel and filter; a width is a channel for all filters.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from autoprune.importance.contributions import contribution_gram
from autoprune.importance.evidence import GroupEvidence, criterion


@criterion("moments", members="moments")
def inbound_variance(evidence: GroupEvidence, rng: np.random.Generator) -> Tensor:
    """(width,) Σ_o Var[x_oj], x_oj the contribution of channel j to output o of the weights that read it.

    The variance is over examples and positions. It departs from the paper, which takes the variance over examples of
    the norm of each contribution's map, for each filter: that of the values is what is lost where the next bias takes
    over the mean, and it comes from the moments that least squares needs. Unlabelled data, two passes for all groups.
    """
    assert evidence.moments is not None  # it is asked for
    return contribution_gram(evidence.moments, evidence.width, centred=True).diagonal().clamp(min=0)
