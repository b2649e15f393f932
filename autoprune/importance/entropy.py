"""Entropy of pooled activations: Luo & Wu 2017, An Entropy-based Pruning Method, arXiv 1706.05791, section 3.2."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from autoprune.errors import ConfigError
from autoprune.importance.evidence import GroupEvidence, criterion


@criterion("pooled")
def entropy(evidence: GroupEvidence, rng: np.random.Generator, *, bins: int = 100) -> Tensor:
    """(width,) -Σ_b p_b log p_b, p_b the share of examples whose mean activation lies in bin b.

    Each channel is averaged over its positions (global average pooling), and the range of its own values over the
    examples is split into equal bins; so the scale of a channel does not count, and a constant one has entropy 0. The
    averages are those of what the readers get. Unlabelled data, one pass for all groups; at most 2,048 examples, an
    even and seeded sample of all, are kept. Scores depend on bins and on the number of examples: leave both the same.

    Args:
        evidence: of the group.
        rng: not used.
        bins: how many there are.

    Raises:
        ConfigError: fewer than 2 bins.
    """
    if bins < 2:
        raise ConfigError(f"bins must be at least 2, got {bins}")
    assert evidence.pooled is not None  # it is asked for
    values = evidence.pooled.double()
    low, high = values.amin(dim=1, keepdim=True), values.amax(dim=1, keepdim=True)
    share = (values - low) / (high - low).clamp(min=torch.finfo(torch.float64).tiny)
    bin_of = (share * bins).long().clamp(max=bins - 1)
    counts = torch.zeros(evidence.width, bins, dtype=torch.float64, device=values.device)
    counts.scatter_add_(1, bin_of, torch.ones_like(values))
    terms: Tensor = torch.special.entr(counts / values.shape[1])
    return terms.sum(dim=1)
