"""As many channels as there are different filters: Ayinde and Zurada 2018, ICLR workshop, arXiv 1802.07653."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import numpy as np

from autoprune.allocation.base import Filters, allocation
from autoprune.allocation.parts.path import kept_counts, widest_inside
from autoprune.allocation.parts.scores import one_of
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import ConfigError
from autoprune.importance.clusters import APART, Linkage, cosine_tree
from autoprune.space.groups import FloatArray, WidthGroup, Widths


@allocation("filters")
def cluster_count(
    domain: BudgetedSpace, scores: Sequence[FloatArray] = (), *, filters: Filters, linkage: Linkage = "average"
) -> Widths:
    """Give each group as many channels as its filters have clusters at one cosine similarity τ for all groups.

    Filters are scaled to unit length and clustered from the bottom up; two clusters merge while their similarity, the
    mean over all pairs in the paper, is above τ. A layer of w filters has 1 + #{merges below 1 - τ in similarity}
    clusters, so one clustering per layer gives its width at every τ, and τ is lowered until the budget is met.
    Clusters of a layer with several writing layers compare all their weights at once. A filter of zeros is no cluster.
    Needs the filters of the base network, no data; scores are not looked at.

    Args:
        domain: the space under its budget.
        scores: not looked at.
        filters: per group and tied set, the weights that write each channel.
        linkage: similarity of two clusters: "average" (the paper), "single" (of the closest pair) or "complete".

    Raises:
        ConfigError: an unknown linkage, or filters that do not fit the groups or are not finite.
    """
    what = "cluster_count"
    one_of(what, "linkage", linkage, get_args(Linkage))
    groups = domain.space.groups
    if len(filters) != len(groups):
        raise ConfigError(f"{what}: filters of {len(filters)} groups given for a space of {len(groups)}")
    return widest_inside(
        domain, kept_counts([_heights(group, sets, linkage) for group, sets in zip(groups, filters, strict=True)])
    )


def _heights(group: WidthGroup, sets: Sequence[FloatArray], linkage: Linkage) -> FloatArray:
    """(width,) cosine distances at which the clusters of a group merge, the mean over tied sets, unit by unit."""
    if not sets:  # nothing to cut by its filters: a block
        return np.full(group.width, APART)
    widths = tuple(len(rows) for rows in sets)
    if widths != (group.sets or (group.width,)) or not all(np.isfinite(rows).all() for rows in sets):
        raise ConfigError(
            f"cluster_count: group {group.name!r} needs finite filters of {group.sets or group.width} channels, got "
            f"{widths}"
        )
    units = [np.sort(_merges(rows, linkage))[::-1].reshape(group.width, -1).mean(axis=1) for rows in sets]
    heights: FloatArray = np.mean(units, axis=0)
    return heights


def _merges(rows: FloatArray, linkage: Linkage) -> FloatArray:
    """(n,) distances of the n - 1 merges; the cluster that is left last never merges, a filter of zeros at once."""
    _, there, merges = cosine_tree(rows, linkage)
    found = np.zeros(len(rows))
    if there.any():
        found[0], found[1 : 1 + len(merges)] = APART, merges[:, 2]
    return found
