"""Channels that lie along two dimensions of a value at once must stay rectangular: tie all but one dimension."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from autoprune.space.groups import IntArray
from autoprune.space.tracing.calls import LabelGraph
from autoprune.space.tracing.labels import VOID, Classes, compact

_VOID = -2


def straighten(graph: LabelGraph) -> Classes:
    """Tie channels until those of every value vary along one dimension at most, and solve the unions.

    The dimension with the most distinct channels stays free (the position inside a shuffle's groups, not the group).
    """
    graph.unions.freeze_spread()
    classes = graph.unions.solve()
    every = [compact(labels) for factors in graph.values.values() for labels in factors]
    pieces = [compact(labels) for labels in graph.pieces]
    _freeze_single(graph, pieces, classes)
    values = [labels for labels in every if sum(n > 1 for n in labels.shape) > 1]
    while [labels for labels in values if _tie(graph, labels, classes)]:  # ties of one value may bend others
        classes = graph.unions.solve()
        _freeze_single(graph, pieces, classes)
    return graph.unions.solve()


def _freeze_single(graph: LabelGraph, pieces: Sequence[Tensor], classes: Classes) -> None:
    """A channel that a slice holds alone has no dimension there to be cut along."""
    for labels in pieces:
        solved = _solved(labels, classes)
        if solved.size and solved.max() >= 0 and not _dims(solved):
            graph.unions.freeze(labels, "a slice in forward holds nothing but this channel")


def axes_of(labels: Tensor, classes: Classes) -> list[tuple[int, IntArray]]:
    """(dimension, class of every index) of the dimensions along which free channels lie; -1 is always kept."""
    solved = _solved(compact(labels), classes)
    if (solved < 0).all():
        return []
    return [(dim, np.maximum(_along(solved, dim).max(axis=1), -1)) for dim in _dims(solved)]


def _tie(graph: LabelGraph, labels: Tensor, classes: Classes) -> bool:
    solved = _solved(labels, classes)
    dims = _dims(solved)
    if len(dims) < 2:
        return False
    keep = max(dims, key=lambda dim: (len(np.unique(_along(solved, dim)[:, 0])), dim))
    rows = labels.movedim(keep, 0).reshape(labels.shape[keep], -1)
    first = rows.max(dim=1).values[:, None].expand(rows.shape)
    graph.unions.unite(rows, first, "channels along two dimensions at once must stay rectangular")
    return True


def _solved(labels: Tensor, classes: Classes) -> IntArray:
    solved = classes.of(labels)
    return np.where(labels.numpy() == VOID, _VOID, solved)


def _along(solved: IntArray, dim: int) -> IntArray:
    return np.moveaxis(solved, dim, 0).reshape(solved.shape[dim], -1)


def _dims(solved: IntArray) -> list[int]:
    """Dimensions along which classes differ; VOID differs from nothing."""
    known = np.where(solved == _VOID, np.iinfo(np.int64).max, solved)
    return [
        dim
        for dim in range(solved.ndim)
        if solved.shape[dim] > 1 and (known.min(axis=dim) < solved.max(axis=dim)).any()
    ]
