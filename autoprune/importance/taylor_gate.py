"""First-order Taylor on gates: Molchanov et al. 2019, arXiv 1906.10771, equation 8 on gates (section 3.2)."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
from torch import Tensor

from autoprune.importance.checks import check_choice
from autoprune.importance.evidence import criterion
from autoprune.importance.members import GroupEvidence

Per: TypeAlias = Literal["batch", "example"]


@criterion("gradients", "curvature")
def taylor_gate(evidence: GroupEvidence, rng: np.random.Generator, *, per: Per = "batch") -> Tensor:
    """(width,) mean of (∂L/∂gate)², the gate being 1: the squared first-order change of the loss without the channel.

    A gate multiplies what all readers of the channel get, so on a residual sum its gradient is the sum over them.
    Squares are taken before the mean: in a trained network the mean gradient is about 0. Labelled data; one forward and
    one backward pass for each batch.

    Args:
        evidence: of the group.
        rng: not used.
        per: square the gradient of a batch's mean loss (as the authors' code does by default) or of each example's own.
    """
    check_choice("per", per, Per)
    assert evidence.gradients is not None  # they are asked for
    assert evidence.curvature is not None
    return evidence.gradients.gate_squares if per == "batch" else evidence.curvature.gates
