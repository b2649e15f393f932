"""Labels: which channel every element of every tensor belongs to, and the unions that tie channels together.

Label values: a positive id names a channel; FIXED cannot go (network input, constants, outputs of unknown operators);
VOID is padding that says nothing about the channel it lies in. Unions and freezes are collected while the graph runs
and solved once at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from autoprune.space.groups import BoolArray, IntArray

FIXED = 0
VOID = -1
_LARGE = torch.iinfo(torch.int64).max


@final
@dataclass(frozen=True, eq=False)
class Classes:
    """Solved unions.

    Attributes:
        root: (n_labels + 1,) class of each label; `root[0]` is meaningless.
        reason: (n_classes,) index into `reasons` of why a class is frozen, -1 where it is free.
        reasons: texts.
        residual: (n_classes,) True where a class is written by a sum of several layers.
    """

    root: IntArray
    reason: IntArray
    reasons: tuple[str, ...]
    residual: BoolArray

    @cached_property
    def _free(self) -> IntArray:
        free = np.where(self.reason[self.root] >= 0, -1, self.root)
        free[FIXED] = -1
        return free

    def of(self, labels: Tensor) -> IntArray:
        """Return the class of every element, -1 for FIXED, VOID and frozen ones."""
        free: IntArray = self._free[np.maximum(labels.numpy(), FIXED)]
        return free

    def why(self, class_: int) -> str | None:
        """Why a class is frozen, None where it is free."""
        index = int(self.reason[class_])
        return None if index < 0 else self.reasons[index]


@final
class Labels:
    """Hands out labels and collects what ties them."""

    def __init__(self) -> None:
        self._count = 0
        self._starts: list[int] = []
        self._loose: list[bool] = []
        self._spread: list[bool] = []
        self._pairs: list[IntArray] = []
        self._frozen: list[tuple[IntArray, str]] = []
        self._residual: list[IntArray] = []

    def fresh(self, *shape: int, loose: bool = False, spread: bool = False) -> Tensor:
        """New labels, one per element.

        Args:
            shape: of the tensor.
            loose: they are no channels of one producer (elements of a positional table).
            spread: they are copies of one value, which forward spreads over whatever it meets; loose, too.
        """
        number = int(np.prod(shape))
        first = self._count + 1
        self._starts.append(first)
        self._loose.append(loose or spread)
        self._spread.append(spread)
        self._count += number
        return torch.arange(first, first + number).reshape(shape)

    def unite(self, a: Tensor, b: Tensor, reason: str) -> Tensor:
        """Tie two tensors of one shape element by element; a channel tied to something FIXED is frozen.

        Returns:
            The labels of the result: the channel's wherever one of the two has a channel.
        """
        first, second = _compact(a, b)
        both = (first > 0) & (second > 0) & (first != second)
        if both.any():
            codes = np.unique((first[both] * (self._count + 1) + second[both]).numpy())
            self._pairs.append(np.stack(np.divmod(codes, self._count + 1)))
        for one, other in ((first, second), (second, first)):
            self.freeze(one[(one > 0) & (other == FIXED)], reason)
        if bool((first > 0).all()):
            return a
        return torch.where(first > 0, first, torch.maximum(first, second)).expand(a.shape)

    def freeze(self, labels: Tensor, reason: str) -> None:
        """Keep these channels whole, and remember why."""
        positive = labels[labels > 0]
        if positive.numel():
            self._frozen.append((np.unique(positive.numpy()), reason))

    def mark_residual(self, a: Tensor, b: Tensor) -> None:
        """Note the channels that two layers write by a sum (the two halves of a rotary embedding are one layer's)."""
        first, second = (labels.numpy() for labels in _compact(a, b))
        layers = (np.searchsorted(self._starts, labels, side="right") for labels in (first, second))
        self._residual.append(np.unique(first[(first > 0) & (second > 0) & np.not_equal(*layers)]))

    def per_channel(self, labels: Tensor, dim: int, reason: str) -> Tensor:
        """Return one label per index of `dim`; all other dimensions are tied together."""
        rows = labels.movedim(dim, 0)
        for axis in range(rows.ndim - 1, 0, -1):
            if rows.stride(axis) == 0:
                rows = rows.select(axis, 0)
        rows = rows.reshape(rows.shape[0], -1)
        head = rows.max(dim=1).values
        if rows.shape[1] > 1 and bool((rows != rows[:, :1]).any()):
            self.unite(rows, head[:, None].expand(rows.shape), reason)
        return head

    def is_spread(self, labels: Tensor) -> bool:
        """True where all labels are copies of one value, spread in forward: they stand for channels, and are none."""
        if not any(self._spread):
            return False
        values = np.unique(compact(labels).numpy())
        return bool(np.array([False, *self._spread])[np.searchsorted(self._starts, values, side="right")].all())

    def is_constant(self, labels: Tensor) -> bool:
        """True where no label is that of a channel: what is fixed, padding, and copies of one value."""
        small = compact(labels)
        positive = small[small > 0]
        return not positive.numel() or self.is_spread(positive)

    def met_along(self, copies: Tensor, dims: Sequence[int]) -> bool:
        """True where copies of a value met different channels along one of these dimensions."""
        root = self.solve().root
        channels = np.repeat([False, *np.logical_not(self._spread)], np.diff([0, *self._starts, self._count + 1]))
        meets = np.zeros(root.max() + 1, dtype=np.bool_)
        meets[root[channels]] = True
        classes = torch.from_numpy(np.where(meets[root], root, -1)[copies.numpy()])
        return any(bool((classes.amax(dim) != classes.amin(dim)).any()) for dim in dims)

    def freeze_spread(self) -> None:
        """Copies of a value that met no channel stay as many as they are."""
        if not any(self._spread):
            return
        root = self.solve().root[1:]
        copies = np.repeat(self._spread, np.diff([*self._starts, self._count + 1]))
        meets = np.zeros(len(root) + 1, dtype=np.bool_)
        meets[root[~copies]] = True
        self._frozen.append((1 + np.flatnonzero(copies & ~meets[root]), "it meets no channel"))

    def splits(self, labels: Tensor) -> list[int]:
        """Dimensions along which channels of one producer lie (heads and their dimensions, groups of a shuffle).

        Others may differ along a dimension only because values of several producers lie beside each other there (a
        class token before patches).
        """
        values = compact(labels).numpy()
        block = np.searchsorted(self._starts, values, side="right")
        tight = ~np.array([True, *self._loose])[block]
        found = []
        for dim in range(values.ndim):
            one, other, counts = (np.moveaxis(a, dim, 0) for a in (values, block, tight & (values > 0)))
            if ((one[1:] != one[:-1]) & (other[1:] == other[:-1]) & counts[1:] & counts[:-1]).any():
                found.append(dim)
        return found

    def solve(self) -> Classes:
        """Solve all unions at once."""
        n = self._count + 1
        pairs = np.concatenate(self._pairs, axis=1) if self._pairs else np.zeros((2, 0), dtype=np.int64)
        matrix = coo_array((np.ones(pairs.shape[1], dtype=np.int8), (pairs[0], pairs[1])), shape=(n, n))
        n_classes, components = connected_components(matrix, directed=False)
        root: IntArray = components.astype(np.int64)
        reason: IntArray = np.full(n_classes, -1, dtype=np.int64)
        for index in range(len(self._frozen) - 1, -1, -1):  # the first reason is the one to tell
            reason[root[self._frozen[index][0]]] = index
        residual = np.zeros(n_classes, dtype=np.bool_)
        for labels in self._residual:
            residual[root[labels]] = True
        return Classes(root, reason, tuple(text for _, text in self._frozen), residual)


def varies(labels: Tensor, dim: int) -> bool:
    """True where two different channels, or a channel and something FIXED, lie along `dim`."""
    if labels.shape[dim] <= 1 or labels.stride(dim) == 0:
        return False
    for other in range(labels.ndim):
        if other != dim % labels.ndim and labels.stride(other) == 0 and labels.shape[other] > 1:
            labels = labels.narrow(other, 0, 1)
    largest = labels.amax(dim)
    smallest = torch.where(labels == VOID, _LARGE, labels).amin(dim)
    return bool(((smallest != largest) & (smallest != _LARGE)).any())


def tighten(labels: Tensor) -> Tensor:
    """Store constant dimensions with stride 0: the same labels, cheap to unite later."""
    for dim in range(labels.ndim):
        if labels.shape[dim] > 1 and labels.stride(dim) != 0:
            head = labels.narrow(dim, 0, 1)
            if torch.equal(head.expand(labels.shape), labels):
                labels = head.expand(labels.shape)
    return labels


def spread(channel: Tensor, dim: int, shape: Sequence[int]) -> Tensor:
    """Expand one label per channel along `dim` to `shape`, without memory."""
    view = [1] * len(shape)
    view[dim] = -1
    return channel.reshape(view).expand(tuple(shape))


def lie_alike(one: Tensor, other: Tensor) -> bool:
    """True where the same indices have the same label in both."""
    return len(one) == len(other) and torch.equal(_first_alike(one), _first_alike(other))


def _first_alike(vector: Tensor) -> Tensor:
    """(n,) The first index with the same label."""
    _, inverse = torch.unique(vector, return_inverse=True)
    places = torch.arange(len(vector))
    return torch.full_like(places, len(vector)).scatter_reduce(0, inverse, places, "amin")[inverse]


def compact(labels: Tensor) -> Tensor:
    """Drop all but one index of each dimension that is stored as constant."""
    return _compact(labels)[0]


def _compact(*tensors: Tensor) -> list[Tensor]:
    """Drop all but one index of each dimension along which every tensor is stored as constant."""
    small = list(tensors)
    for dim in range(tensors[0].ndim):
        if all(t.stride(dim) == 0 or t.shape[dim] == 1 for t in tensors):
            small = [t.narrow(dim, 0, min(1, t.shape[dim])) for t in small]
    return small
