"""A split of which every pass reads other examples, and only so many."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, final

from autoprune.data.base import ImageTransform, Split
from autoprune.data.batch import Batch
from autoprune.errors import ConfigError


@final
class Shortened(Split):
    """The first examples of each pass in the order that its seed gives: passes of other seeds read others.

    Args:
        split: all examples.
        examples: that a pass reads at most, at least 1.

    Raises:
        ConfigError: fewer than 1 example.
    """

    def __init__(self, split: Split, examples: int) -> None:
        if examples < 1:
            raise ConfigError(f"a shortened split must have at least 1 example, got {examples}")
        self._split, self._examples = split, examples

    def __len__(self) -> int:
        return min(self._examples, len(self._split))

    def batches(
        self,
        batch_size: int,
        *,
        seed: int | None = None,
        augment: bool | ImageTransform = False,
        limit: int | None = None,
    ) -> Iterator[Any]:
        """See `Split.batches`."""
        left = len(self)
        for drawn in self._split.batches(batch_size, seed=seed, augment=augment, limit=limit):
            if isinstance(drawn, Batch):
                yield drawn.first(left)
                left -= len(drawn)
            else:
                yield drawn[0][:left], drawn[1][:left]
                left -= len(drawn[0])
            if left <= 0:
                return

    @property
    def transforms(self) -> bool:
        """As the split."""
        return self._split.transforms

    @property
    def fingerprint(self) -> str:
        """Of all examples, and how many are read."""
        return f"{self._examples} of {self._split.fingerprint}"
