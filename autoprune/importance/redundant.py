"""Redundant feature pruning: Ayinde & Zurada 2018, Building Efficient ConvNets, arXiv 1802.07653, section 3."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from autoprune.importance.clusters import APART, cosine_tree
from autoprune.importance.evidence import GroupEvidence, criterion
from autoprune.space.groups import FloatArray


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
    norms, there, merges = cosine_tree(filters.cpu().numpy())
    scores = np.zeros(len(norms))
    scores[there] = _standing(merges, norms[there])
    return torch.from_numpy(scores).to(filters)


def _standing(merges: FloatArray, norms: FloatArray) -> FloatArray:
    """(n,) distances at which each gives way; the largest norm stands for its cluster."""
    scores = np.full(len(norms), APART)
    standing = list(range(len(norms)))
    for one, other, height, _ in merges:
        weaker, stronger = sorted((standing[int(one)], standing[int(other)]), key=lambda channel: norms[channel])
        scores[weaker] = height
        standing.append(stronger)
    return scores
