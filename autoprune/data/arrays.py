"""From numpy arrays of images to splits: stratified order, held-out validation, normalisation by train."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias, final

import numpy as np
import torch
from numpy.typing import NDArray

from autoprune.data.base import Augmentation, DataSplits, TensorSplit
from autoprune.errors import ConfigError, DataError

Images: TypeAlias = NDArray[np.uint8]
Labels: TypeAlias = NDArray[np.int64]

_SPLIT_SEED = 0  # of every fixed split: changing it changes what all earlier results were measured on
_CHUNK = 1024


@final
@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """Images (N, C, H, W) with their labels (N,)."""

    images: Images
    labels: Labels

    def __getitem__(self, chosen: slice | NDArray[np.intp]) -> Examples:
        return Examples(self.images[chosen], self.labels[chosen])

    def __len__(self) -> int:
        return len(self.labels)

    def stratified(self) -> Examples:
        """The same examples in stratified order, under a fixed seed."""
        return self[stratified_order(self.labels, seed=_SPLIT_SEED)]

    def hold_out(self, n: int) -> tuple[Examples, Examples]:
        """Return (the rest, `n` examples), both stratified.

        Raises:
            DataError: there are no more than `n` examples.
        """
        if not 1 <= n < len(self):
            raise DataError(f"cannot hold {n} of {len(self)} examples out: 1 to {len(self) - 1} are possible")
        ordered = self.stratified()
        return ordered[n:], ordered[:n]

    def first(self, limit: int | None) -> Examples:
        """The first `limit` examples, copied so that the rest can be freed; all for None.

        Raises:
            ConfigError: the limit is below 1.
        """
        if limit is not None and limit < 1:
            raise ConfigError(f"a limit on examples must be at least 1, got {limit}")
        return self if limit is None else self[np.arange(min(limit, len(self)))]


def stratified_order(labels: Labels, *, seed: int) -> NDArray[np.intp]:
    """A random order whose every stretch has the class proportions of the whole, to within an example or two per class.

    Each class is shuffled and spread evenly over 0..1; sorting by that place merges the classes. So a split is
    a slice, and the first `n` of a split are a fair sample of it.

    Args:
        labels: (N,) class numbers.
        seed: of the shuffling.
    """
    rng = np.random.default_rng(seed)
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    return np.lexsort((rng.random(len(labels)), place))


def image_splits(
    name: str,
    *,
    train: Examples,
    validation: Examples,
    test: Examples | None,
    classes: int,
    augmentation: Augmentation,
) -> DataSplits:
    """Make splits of examples in stratified order, normalised by mean and standard deviation of `train`.

    Raises:
        DataError: malformed arrays (see `TensorSplit`).
    """
    mean, std = channel_statistics(train.images)

    def split(examples: Examples) -> TensorSplit:
        images, labels = torch.from_numpy(examples.images), torch.from_numpy(examples.labels)
        return TensorSplit(images, labels, mean=mean, std=std, augmentation=augmentation)

    return DataSplits(
        name=name,
        train=split(train),
        validation=split(validation),
        test=None if test is None else split(test),
        classes=classes,
        input_shape=train.images.shape[1:],
    )


def channel_statistics(images: Images) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and standard deviation per channel of (N, C, H, W) images scaled to 0..1; 1 for a constant channel's."""
    pixels = images[:, 0].size
    total = np.zeros(images.shape[1])
    squares = np.zeros(images.shape[1])
    for start in range(0, len(images), _CHUNK):  # float64 of everything would be 8 times the data
        chunk = images[start : start + _CHUNK] / 255.0
        total += chunk.sum((0, 2, 3))
        squares += np.square(chunk).sum((0, 2, 3))
    mean = total / pixels
    std = np.sqrt(np.maximum(squares / pixels - mean**2, 0.0))
    return mean.tolist(), np.where(std > 1e-6, std, 1.0).tolist()
