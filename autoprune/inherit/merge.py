"""Merging: similar channels become one, their mean; no channel is simply cut."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, final

import numpy as np
import torch
from torch import Tensor, nn

from autoprune.errors import ConfigError
from autoprune.inherit.base import Changes, Inheritance, Statistics
from autoprune.space.cutting.cut import Cut
from autoprune.space.cutting.slicing import tensor_of
from autoprune.space.groups import AxisLayout, BoolArray, IntArray, SearchSpace, TensorLayout
from autoprune.space.kinds import KINDS
from autoprune.space.options.ties import set_ranges


@final
class Merge(Inheritance):
    """Channels of a group form as many k-means clusters as are kept; each of the kept ones becomes its cluster's mean.

    C-SGD, Ding et al. CVPR 2019, Centripetal SGD for Pruning Very Deep Convolutional Networks, section 3: filters of a
    cluster are averaged (biases and vectors of norms, too) and the slices of the next layers that read them are summed,
    which changes nothing where they are equal. C-SGD trains them to be so; this is the merge alone, its cheap variant.

    A channel is described by the filters and biases of all layers that write it, each layer scaled to the same norm
    (C-SGD takes the first layer of a residual group). Clusters begin at the kept channels and take `iterations` of
    Lloyd's, so that nothing is random; one that ends empty has the kept channel itself. Heads and tied sets are merged
    like channels.

    Data: none. Cost per candidate: `iterations` products of (channels × filter) by (filter × kept). It stands first in
    a list; `bn_recalibration` after it fits the norms to what was merged.

    Args:
        iterations: at most so many.

    Raises:
        ConfigError: a number of iterations below 1.
    """

    changes: ClassVar[Changes] = "channels"
    needs_data: ClassVar[bool] = False

    def __init__(self, *, iterations: int = 20) -> None:
        if not isinstance(iterations, int) or isinstance(iterations, bool) or iterations < 1:
            raise ConfigError(f"merge: iterations must be at least 1, a whole number, got {iterations!r}")
        self._iterations = iterations

    def apply(self, cut: Cut, dense: nn.Module, statistics: Statistics) -> None:
        """See `Inheritance.apply`."""
        space = cut.space
        features = statistics.of_dense("filters of groups", dense, lambda: list(_features(dense, space)))
        survived = _survived(cut)
        owners: list[IntArray] = []
        for group, of_sets, kept in zip(space.groups, features, survived, strict=True):
            owner = np.arange(group.slots)
            if of_sets and not kept.all():
                for (start, width), rows in zip(set_ranges(group), of_sets, strict=True):
                    inside = np.flatnonzero(kept[start : start + width])
                    owner[start : start + width] = start + inside[cluster(rows, inside, self._iterations)]
            owners.append(owner)
        with torch.no_grad():
            for layout in space.tensors:
                if layout.name in cut.kept and any(kept is not None for kept in cut.kept[layout.name]):
                    _merge(layout, cut, dense, owners)


def cluster(rows: Tensor, first: IntArray, iterations: int) -> IntArray:
    """(n,) the cluster of each row, by Lloyd's algorithm; each has at least one.

    Args:
        rows: (n, features).
        first: (k,) rows at which the centres begin.
        iterations: at most so many.
    """
    centres = rows[torch.from_numpy(first)]
    labels = torch.full((len(rows),), -1)
    for _ in range(iterations):
        distances = centres.square().sum(dim=1) - 2 * rows @ centres.T  # but for what does not depend on the centre
        found = distances.argmin(dim=1)
        if torch.equal(found, labels):
            break
        labels = found
        sums = torch.zeros_like(centres).index_add_(0, labels, rows)
        counts = torch.bincount(labels, minlength=len(centres))[:, None]
        centres = torch.where(counts > 0, sums / counts.clamp(min=1), centres)
    of_rows: IntArray = labels.numpy()
    while len(empty := np.setdiff1d(np.arange(len(first)), of_rows)):  # equal rows all go to one of their centres
        of_rows[first[empty]] = empty
    return of_rows


def _survived(cut: Cut) -> list[BoolArray]:
    """Per group, (slots,) which channels are left."""
    survived: list[BoolArray] = [np.ones(group.slots, dtype=np.bool_) for group in cut.space.groups]
    for layout in cut.space.tensors:
        for axis, indices in zip(layout.axes, cut.kept.get(layout.name, ()), strict=False):
            if axis is None or indices is None:
                continue
            gone = np.ones(len(axis.group), dtype=np.bool_)
            gone[indices.cpu().numpy()] = False
            for group in np.unique(axis.group[gone]):
                survived[group][axis.channel[gone & (axis.group == group)]] = False
    return survived


def _features(dense: nn.Module, space: SearchSpace) -> Iterator[list[Tensor]]:
    """Per group, for each of its tied sets (width, features) in double precision; none where nothing is ranked."""
    norms = {name for name, module in dense.named_modules() if getattr(module, "running_mean", None) is not None}
    written = [t for t in space.tensors if t.kind == "parameter" and t.name.rpartition(".")[0] not in norms]
    for index, group in enumerate(space.groups):
        parts: list[list[Tensor]] = [[] for _ in set_ranges(group)]
        for layout in written if KINDS[group.kind].ranked else ():
            for dim, axis in enumerate(layout.axes):
                if axis is None or dim in layout.reads or not (axis.group == index).any():
                    continue
                for part, (start, width) in zip(parts, set_ranges(group), strict=True):
                    part.extend(_rows(tensor_of(dense, layout.name), dim, axis, index, start, width))
        yield [torch.cat(part, dim=1) for part in parts] if all(parts) else []


def _rows(tensor: Tensor, dim: int, axis: AxisLayout, group: int, start: int, width: int) -> Iterator[Tensor]:
    """(width, n) entries of each channel, of mean squared norm 1 over the channels; nothing where all are zero."""
    inside = np.flatnonzero((axis.group == group) & (axis.channel >= start) & (axis.channel < start + width))
    if not len(inside):
        return
    order = inside[np.argsort(axis.channel[inside], kind="stable")]
    rows = tensor.detach().cpu().double().index_select(dim, torch.from_numpy(order)).movedim(dim, 0)
    rows = rows.reshape(width, -1)
    scale = rows.square().sum(dim=1).mean().sqrt()
    yield rows / scale if scale > 0 else rows


def _merge(layout: TensorLayout, cut: Cut, dense: nn.Module, owners: list[IntArray]) -> None:
    """Means along the axes that are written, sums along those that are read."""
    merged = tensor_of(dense, layout.name).detach()
    target = tensor_of(cut.network, layout.name)
    if not merged.is_floating_point():
        return
    exact = merged.double()
    for dim, (axis, indices) in enumerate(zip(layout.axes, cut.kept[layout.name], strict=True)):
        if axis is None or indices is None:
            continue
        places = torch.from_numpy(_places(axis, indices.cpu().numpy(), owners)).to(exact.device)
        shape = [*exact.shape[:dim], len(indices), *exact.shape[dim + 1 :]]
        exact = exact.new_zeros(shape).index_add_(dim, places, exact)
        if dim not in layout.reads:
            counts = torch.bincount(places, minlength=len(indices))
            exact = exact / counts.reshape([-1 if d == dim else 1 for d in range(exact.ndim)])
    target.copy_(exact.to(target.device, target.dtype))


def _places(axis: AxisLayout, kept: IntArray, owners: list[IntArray]) -> IntArray:
    """(n,) at which place of the cut axis each index of the full one goes on; a channel may have several indices."""
    channel, seen = axis.channel.copy(), np.zeros(len(axis.group), dtype=np.int64)
    for group in np.unique(axis.group[axis.group >= 0]):
        inside = axis.group == group
        channel[inside] = owners[group][axis.channel[inside]]
    counts: dict[tuple[int, int], int] = {}
    for i, key in enumerate(zip(axis.group.tolist(), axis.channel.tolist(), strict=True)):
        seen[i] = counts.get(key, 0)
        counts[key] = seen[i] + 1
    place = {(int(axis.group[i]), int(axis.channel[i]), int(seen[i])): p for p, i in enumerate(kept)}
    keys = zip(axis.group.tolist(), channel.tolist(), seen.tolist(), strict=True)
    return np.array([place[key] for key in keys])
