"""Tables that are larger than what forward reads of them: positions beyond the example's, columns that are left out."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from autoprune.space.tracing.calls import LabelGraph


def tie_unread(graph: LabelGraph) -> None:
    """Let rows of a tensor that nobody reads lose the channels that the rows beside them lose.

    Where the rows that are read hold channels of their own, the others are none that could be cut.
    """
    tables = [labels for labels in graph.element_labels.values() if labels.ndim > 1]
    if not tables:
        return
    classes = graph.unions.solve()
    alone = (np.bincount(classes.root) == 1) & (classes.reason < 0)
    for labels in tables:
        root = classes.root[labels.numpy()]
        unread = alone[root]
        if unread.any() and not unread.all():
            _tie_rows(graph, labels, np.where(unread, -1, root), unread)


def _tie_rows(graph: LabelGraph, labels: Tensor, root: np.ndarray, unread: np.ndarray) -> None:
    for axis in range(labels.ndim):
        rows, known, silent = labels.movedim(axis, 0), np.moveaxis(root, axis, 0), np.moveaxis(unread, axis, 0)
        never = silent.reshape(len(silent), -1).all(axis=1)
        if not never.any():
            continue
        beside, others = known[~never], rows[torch.from_numpy(never)]
        if (beside == beside[:1]).all():
            example = rows[int(np.flatnonzero(~never)[0])]
            graph.unions.unite(others, example.expand(others.shape), "it lies beside what stays")
        else:
            graph.unions.freeze(others, "nobody reads it")
