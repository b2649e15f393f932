"""Redundant feature pruning: Ayinde & Zurada 2018, Building Efficient ConvNets, arXiv 1802.07653, section 3."""

from __future__ import annotations

import numpy as np
import torch
from scipy.cluster.hierarchy import linkage
from torch import Tensor

from autoprune.importance.evidence import GroupEvidence, criterion


@criterion("weights", members="filters")
def redundant(evidence: GroupEvidence, rng: np.random.Generator) -> Tensor:
    """(width,) the cosine distance at which another channel comes to stand for this one; 2 for the last that stands.

    The paper joins clusters of unit-normalised filters while their mean pairwise cosine similarity is above τ
    (agglomerative clustering, average linkage) and keeps one filter of each. Where two clusters join at distance
    1 - τ, the representative with the smaller norm gets this distance as its score (the paper draws it by chance), so
    the best k channels are one of each of k clusters, for every k. A filter of zeros has the score 0.

    A filter is all weights that write the channel, over all layers of the group. No data, no passes; width² distances.
    """
    filters = torch.cat([rows.double() for rows in evidence.filters], dim=1)
    norms = filters.norm(dim=1)
    scores = torch.zeros_like(norms)
    there = norms > norms.max() * torch.finfo(evidence.filters[0].dtype).tiny
    if not bool(there.any()):
        return scores
    units = filters[there] / norms[there, None]
    scores[there] = _standing(units, norms[there])
    return scores


def _standing(units: Tensor, norms: Tensor) -> Tensor:
    """(n,) distances of unit vectors at which each gives way; the largest norm stands for its cluster."""
    n = len(units)
    scores = torch.full_like(norms, 2.0)
    if n == 1:
        return scores
    above = torch.triu_indices(n, n, offset=1, device=units.device)
    distances = (1 - (units @ units.T)[above[0], above[1]]).clamp(0, 2).cpu().numpy()
    sizes = norms.cpu().numpy()
    standing = list(range(n))
    for one, other, height, _ in linkage(distances, method="average"):
        weaker, stronger = sorted((standing[int(one)], standing[int(other)]), key=lambda channel: sizes[channel])
        scores[weaker] = float(height)
        standing.append(stronger)
    return scores
