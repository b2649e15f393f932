"""What rules read from the shapes of a network: the weights that write each group, and shares of weights as ratios."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from autoprune.space.groups import FloatArray, SearchSpace, TensorLayout


def layers(space: SearchSpace) -> list[TensorLayout]:
    """The weights of all convolutions and matrix products, in the order of the state dict; each shared one once."""
    return [t for t in space.tensors if t.kind == "parameter" and len(t.shape) > 1]


def writers(space: SearchSpace) -> list[list[TensorLayout]]:
    """Per group the weights that write its channels; the weights that read them where none does (tied embeddings)."""
    written: list[list[TensorLayout]] = [[] for _ in space.groups]
    read: list[list[TensorLayout]] = [[] for _ in space.groups]
    for tensor in layers(space):
        for found, reads in ((written, False), (read, True)):
            axes = [a for d, a in enumerate(tensor.axes) if a is not None and (d in tensor.reads) == reads]
            for group in {int(g) for axis in axes for g in np.unique(axis.group) if g >= 0}:
                found[group].append(tensor)
    return [own or others for own, others in zip(written, read, strict=True)]


def ratios_of_shares(space: SearchSpace, shares: Mapping[str, float]) -> FloatArray:
    """(G,) ratios of widths that stand for shares of weights that layers keep.

    A layer whose inputs and outputs keep the ratios r and s of their channels keeps r·s of its weights, so a ratio is
    the square root of a share; that of a group is the square root of the share that all its writing layers keep
    together. Groups without any weights have the mean ratio. The density, rank or bits of a layer are its
    share itself.

    Args:
        space: the groups.
        shares: name of a layer's weights -> share that it keeps, in any unit.
    """
    ratios = np.full(len(space.groups), np.nan)
    for name, (group, _) in (*space.sparse.items(), *space.factored.items(), *space.rounded.items()):
        ratios[group] = shares[name]
    for number, of_group in enumerate(writers(space)):
        sizes = np.array([np.prod(t.shape, dtype=np.float64) for t in of_group])
        if sizes.sum() > 0:
            ratios[number] = np.sqrt(np.average([shares[t.name] for t in of_group], weights=sizes))
    usual = float(np.nanmean(ratios)) if np.isfinite(ratios).any() else 1.0
    filled: FloatArray = np.where(np.isfinite(ratios), ratios, usual)
    scaled: FloatArray = filled / filled.max()
    return scaled
