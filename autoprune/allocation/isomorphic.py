"""Scores are ranked among structures of the same kind only: Fang et al. 2024, Isomorphic Pruning, arXiv 2407.04616."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence

import numpy as np

from autoprune.allocation.parts.path import widest_inside
from autoprune.allocation.parts.scores import Normalisation, checked_scores, normalised
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.space.groups import FloatArray, SearchSpace, TensorLayout, Widths

_STEPS = 1000  # shares that are looked at; between two of them widths are interpolated


def isomorphic(domain: BudgetedSpace, scores: Sequence[FloatArray], *, normalise: Normalisation = "none") -> Widths:
    """Cut the same share of the channels of every class of isomorphic groups, the least important of the class.

    Importances of heads, of MLP channels and of a residual stream are not on one scale, but those of two MLPs are: so
    one ranking for each class (section 3.2, "isolated ranking and pruning"), and one share for all classes. Two groups
    are isomorphic if they are of the same kind and the same weights write and read them: as many, with the same number
    of axes, of the same kernel sizes, on the same axes. Widths may differ. Channels of equal scores go in the order of
    their rank within the group, so that equal scores give equal ratios.

    Args:
        domain: the space under its budget.
        scores: per group, (width,) importances of its channels, not negative.
        normalise: what the scores of a group are divided by before they are ranked: "none" (the paper), "l2", "mean" or
            "max".

    Raises:
        ConfigError: an unknown normalisation, or scores that do not fit the groups.
    """
    ranked = normalised("isomorphic", checked_scores("isomorphic", domain, scores), normalise)
    kept = np.zeros((_STEPS + 1, len(ranked)))
    for members in classes_of(domain.space):
        score = np.concatenate([np.sort(ranked[g])[::-1] for g in members])
        place = np.concatenate([np.arange(len(ranked[g])) / len(ranked[g]) for g in members])
        group = np.repeat(members, [len(ranked[g]) for g in members])
        order = group[np.lexsort((place, -score))]
        number = np.linspace(0.0, len(order), _STEPS + 1)
        for g in members:
            counts = np.concatenate([[0], np.cumsum(order == g)])
            kept[:, g] = np.interp(number, np.arange(len(counts)), counts)
    return widest_inside(domain, kept)


def classes_of(space: SearchSpace) -> list[list[int]]:
    """Indices of the groups of each class of isomorphic structures, in order of the first of each."""
    found: dict[Hashable, list[int]] = defaultdict(list)
    for index in range(len(space.groups)):
        found[_structure(space, index)].append(index)
    return list(found.values())


def _structure(space: SearchSpace, index: int) -> Hashable:
    group = space.groups[index]
    touching = Counter(
        (dim in tensor.reads, _outline(tensor))
        for tensor in space.tensors
        if tensor.kind == "parameter"
        for dim, axis in enumerate(tensor.axes)
        if axis is not None and (axis.group == index).any()
    )
    return group.kind, len(group.sets), frozenset(touching.items())


def _outline(tensor: TensorLayout) -> Hashable:
    """What of a shape does not depend on widths: the number of axes, the kernel, whether it is depthwise."""
    return len(tensor.shape), tensor.shape[2:], len(tensor.shape) > 2 and tensor.shape[1] == 1
