"""First-order Taylor on activations: Molchanov et al. 2017, arXiv 1611.06440, equation 8."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from autoprune.importance.evidence import criterion
from autoprune.importance.members import GroupEvidence


@criterion("gradients")
def taylor_activation(evidence: GroupEvidence, rng: np.random.Generator, *, layer_l2: bool = True) -> Tensor:
    """(width,) mean over examples of |mean over positions of z · ∂L/∂z|.

    z is what the readers of the channel get and L the example's own loss; where several layers read it, the products
    are summed over them and the mean is over the positions of all. Labelled data; one forward and one backward pass for
    each batch.

    Args:
        evidence: of the group.
        rng: not used.
        layer_l2: divide by the L2 norm over the channels of the group, as the paper does to compare layers.
    """
    assert evidence.gradients is not None  # it is asked for
    scores = evidence.gradients.magnitudes
    return scores / scores.norm().clamp(min=1e-300) if layer_l2 else scores
