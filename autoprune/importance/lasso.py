"""Channel selection by the lasso: He et al. 2017, Channel Pruning, arXiv 1707.06168, equation 3."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from autoprune.errors import ConfigError
from autoprune.importance.contributions import contribution_gram, weight_norms
from autoprune.importance.evidence import GroupEvidence, criterion
from autoprune.importance.lasso_path import entry_penalties


@criterion("moments", members="moments")
def lasso(evidence: GroupEvidence, rng: np.random.Generator, *, unit_norms: bool = True, ridge: float = 1e-6) -> Tensor:
    """(width,) the largest λ at which β_j ≠ 0 in argmin ½ E‖y - Σ_j β_j x_j‖² + λ ‖β‖₁.

    x_j is what channel j contributes to the outputs of the weights that read it, y the sum of all x_j. The problem only
    depends on G_ij = E[x_iᵀ x_j]: ½ (1 - β)ᵀ G (1 - β). The paper raises λ until few enough β are not zero; here the
    whole path is followed exactly (see `lasso_path`), and channels are ranked by where they enter it. Where a channel
    leaves the path again, the paper's set of one width need not lie in that of a larger one; a ranking's does.

    Unlabelled data, two passes for all groups; at most 32 sampled positions of each example (the paper takes 10). Then
    about `width` solves of at most that size (a second for 512 channels).

    Args:
        evidence: of the group.
        rng: not used.
        unit_norms: scale contributions to weights of norm 1, ‖W_j‖_F = 1, as the paper demands: the penalty of β_j is
            λ ‖W_j‖. Its released code does not.
        ridge: added to the diagonal of G, as a share of its mean, as channels may be copies of one another.

    Raises:
        ConfigError: `ridge` is not above 0.
    """
    if not ridge > 0:
        raise ConfigError(f"ridge must be above 0, got {ridge}")
    assert evidence.moments is not None  # it is asked for
    gram = contribution_gram(evidence.moments, evidence.width).cpu()
    mean = float(gram.diagonal().mean())
    if mean <= 0:
        return torch.zeros(evidence.width, dtype=torch.float64)
    gram.diagonal().add_(ridge * mean)
    target = gram.sum(dim=1)
    if unit_norms:
        norms = weight_norms(evidence.moments, evidence.width).cpu()
        scale = torch.where(norms > 0, 1 / norms, 1 / norms.max().clamp(min=1e-300))
        gram, target = gram * scale[:, None] * scale, target * scale
    return torch.from_numpy(entry_penalties(gram.numpy(), target.numpy()))
