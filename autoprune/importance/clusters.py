"""Filters clustered by direction: Ayinde and Zurada 2018, Building Efficient ConvNets, arXiv 1802.07653, section 3.

The criterion `redundant` and the allocation `cluster_count` read the same tree.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
from scipy.cluster.hierarchy import linkage as agglomerated

from autoprune.space.groups import BoolArray, FloatArray

Linkage: TypeAlias = Literal["average", "single", "complete"]

APART = 2.0
"""The cosine distance of opposite filters, the largest there is."""


def cosine_tree(filters: FloatArray, linkage: Linkage = "average") -> tuple[FloatArray, BoolArray, FloatArray]:
    """Cluster filters from the bottom up by their cosine distances; filters of zeros take no part.

    Args:
        filters: (n, size) one row each.
        linkage: distance of two clusters: the mean over all pairs (the paper), of the closest or of the farthest pair.

    Returns:
        (n,) norms; (n,) which filters take part; (parts - 1, 4) merges as scipy writes them, nearest first, of parts
        numbered in their order.
    """
    rows = np.asarray(filters, dtype=np.float64).reshape(len(filters), -1)
    norms = np.linalg.norm(rows, axis=1)
    there = norms > norms.max(initial=0.0) * np.finfo(np.float32).tiny
    units = rows[there] / norms[there, None]
    if len(units) < 2:
        return norms, there, np.zeros((0, 4))
    pairs = np.triu_indices(len(units), 1)
    distances = np.clip(1 - (units @ units.T)[pairs], 0.0, APART)
    return norms, there, agglomerated(distances, linkage)
