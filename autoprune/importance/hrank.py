"""Rank of feature maps: Lin et al. 2020, HRank, arXiv 2002.10179, equation 7."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from autoprune.errors import ConfigError
from autoprune.importance.evidence import GroupEvidence, criterion


@criterion("maps", members="maps")
def hrank(evidence: GroupEvidence, rng: np.random.Generator, *, examples: int = 64) -> Tensor:
    """(width,) mean over examples of the rank of the channel's feature map, and over the calls that read it.

    A map is what a reader gets, height by width; the rank counts singular values above max(height, width) ε σ₁, ε that
    of the numbers' type. Maps of one row (tokens, flattened maps) are taken as squares where they can be, else their
    rank is 1 or 0. Unlabelled data, one pass for all groups; 64 examples are kept at most (the paper takes 500 and
    finds the ranks nearly the same for each), fewer where their maps would fill more than 128 MB.

    Args:
        evidence: of the group.
        rng: not used.
        examples: how many of those are looked at.

    Raises:
        ConfigError: `examples` is below 1.
    """
    if examples < 1:
        raise ConfigError(f"examples must be at least 1, got {examples}")
    assert evidence.maps is not None  # it is asked for
    ranks = []
    for maps in evidence.maps:
        some = _squares(maps[:, :examples])
        some = some if some.dtype in (torch.float32, torch.float64) else some.float()
        ranks.append(torch.linalg.matrix_rank(some).double().mean(dim=1))
    return torch.stack(ranks).mean(dim=0)


def _squares(maps: Tensor) -> Tensor:
    *_, height, width = maps.shape
    side = math.isqrt(height * width)
    if min(height, width) > 1 or side * side != height * width:
        return maps
    return maps.reshape(*maps.shape[:2], side, side)
