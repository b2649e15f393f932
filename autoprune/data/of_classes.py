"""A split of which only the examples of some classes are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import final

import torch
from torch import Tensor

from autoprune.data.base import ImageTransform, Split, digest
from autoprune.errors import ConfigError, DataError

_COUNTED = 512
"""So many examples are looked at together when they are counted."""


@final
class OfClasses(Split):
    """The examples of some classes, which are numbered from 0 in the order in which they are given.

    Each pass reads all examples of the split, and gives batches of the full size of those that belong.

    Args:
        split: of pairs (inputs, class numbers).
        classes: numbers of classes, each once.
        role: "train", "validation" or "test", for messages.

    Raises:
        DataError: on reading or counting, the split has no example of these classes.
    """

    def __init__(self, split: Split, classes: Sequence[int], role: str) -> None:
        self._split, self._classes, self._role = split, tuple(classes), role

    @cached_property
    def _length(self) -> int:
        chosen = torch.tensor(self._classes)
        counted = sum(int(torch.isin(targets, chosen).sum()) for _, targets in self._split.batches(_COUNTED))
        if not counted:
            raise DataError(
                f"{self._role} has no example of the classes {self._classes[0]} to {self._classes[-1]}; correct the "
                f"data set, or divide the classes into fewer tasks"
            )
        return counted

    def __len__(self) -> int:
        return self._length

    def batches(
        self,
        batch_size: int,
        *,
        seed: int | None = None,
        augment: bool | ImageTransform = False,
        limit: int | None = None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """See `Split.batches`."""
        if limit is not None and limit < 1:
            raise ConfigError(f"limit must be at least 1, got {limit}")
        chosen = torch.tensor(self._classes)
        left = len(self) if limit is None else min(limit, len(self))
        kept: tuple[Tensor, Tensor] | None = None
        for inputs, labels in self._split.batches(batch_size, seed=seed, augment=augment):
            of_each = labels[:, None] == chosen
            belongs = of_each.any(1)
            found = inputs[belongs], of_each.int().argmax(1)[belongs]
            kept = found if kept is None else (torch.cat((kept[0], found[0])), torch.cat((kept[1], found[1])))
            while left and len(kept[1]) >= (size := min(batch_size, left)):
                yield kept[0][:size], kept[1][:size]
                kept, left = (kept[0][size:], kept[1][size:]), left - size
            if not left:
                return

    @property
    def transforms(self) -> bool:
        """As the split."""
        return self._split.transforms

    @property
    def fingerprint(self) -> str:
        """Of all examples, and which classes are read."""
        return digest(self._split.fingerprint, repr(self._classes))
