"""What is kept of the values that readers get: sums per channel, sums per index, and samples of examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np
import torch
from torch import Tensor

from autoprune.importance.reads import Read, Slots

SAMPLED_MAPS = 64
"""Examples whose maps are kept; fewer where they would hold more than `SAMPLED_VALUES` numbers."""
SAMPLED_MEANS = 2048
"""Examples whose means are kept."""
SAMPLED_VALUES = 2**25


@final
class ValueSums:
    """(4, slots) sums of values, of their squares, number of zeros, sums of absolute values.

    Args:
        slots: numbers of the channels.
        device: of the sums.
    """

    def __init__(self, slots: Slots, device: torch.device) -> None:
        self.sums = torch.zeros(4, slots.number, dtype=torch.float64, device=device)
        self._batch = torch.zeros_like(self.sums)

    def begin(self, examples: int) -> None:
        """See `Recorder`."""
        self._batch.zero_()

    def record(self, read: Read) -> None:
        """See `Recorder`."""
        rows = read.rows()
        sums = (
            rows.sum(dim=1, dtype=torch.float64),
            rows.double().square().sum(dim=1),
            (rows == 0).sum(dim=1).double(),
            rows.abs().sum(dim=1, dtype=torch.float64),
        )
        for moment, total in zip(self._batch, sums, strict=True):
            moment.index_add_(0, read.slots, total)

    def staged(self) -> Sequence[Tensor]:
        """See `Recorder`."""
        return (self._batch,)

    def commit(self) -> None:
        """See `Recorder`."""
        self.sums += self._batch


@final
class InputSquares:
    """Of each reader the sum of squares of each index of its input axis, and how many values there were."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[Tensor, int]] = {}
        self._batch: dict[str, tuple[Tensor, int]] = {}

    def begin(self, examples: int) -> None:
        """See `Recorder`."""
        self._batch = {}

    def record(self, read: Read) -> None:
        """See `Recorder`."""
        rows = read.rows()
        _add(self._batch, read.name, rows.double().square().sum(dim=1), rows.shape[1])

    def staged(self) -> Sequence[Tensor]:
        """See `Recorder`."""
        return [total for total, _ in self._batch.values()]

    def commit(self) -> None:
        """See `Recorder`."""
        for name, (total, count) in self._batch.items():
            _add(self._sums, name, total, count)

    def means(self) -> dict[str, Tensor]:
        """Name of a reader -> (size,) mean squares."""
        return {name: total / count for name, (total, count) in self._sums.items()}


def _add(sums: dict[str, tuple[Tensor, int]], name: str, total: Tensor, count: int) -> None:
    before = sums.get(name)
    sums[name] = (total, count) if before is None else (before[0] + total, before[1] + count)


@final
class Reservoir:
    """An even sample of examples of batches whose number is not known before (Vitter 1985, algorithm R), seeded.

    Args:
        size: how many are kept.
        seed: of the sample.
    """

    def __init__(self, size: int, *, seed: int = 0) -> None:
        self.size, self._seed, self._met, self._examples = size, seed, 0, 0

    def begin(self, examples: int) -> list[tuple[int, int]]:
        """(example of the batch, place in the sample) of those to be kept."""
        places: dict[int, int] = {}
        rng = np.random.default_rng([self._seed, self._met])  # batches that do not count leave no trace
        for example in range(examples):
            met = self._met + example
            place = met if met < self.size else int(rng.integers(met + 1))
            if place < self.size:
                places[place] = example  # a later one takes the place of an earlier one
        self._examples = examples
        return [(example, place) for place, example in places.items()]

    def commit(self) -> None:
        """The examples count."""
        self._met += self._examples

    def shrink(self, size: int) -> None:
        """Keep fewer."""
        self.size = size


@final
class MapSample:
    """Of each call that reads, what it gets of a sample of examples, position by position."""

    def __init__(self) -> None:
        self._reservoir = Reservoir(SAMPLED_MAPS)
        self._kept: list[dict[tuple[str, int], Tensor]] = [{} for _ in range(SAMPLED_MAPS)]
        self._batch: dict[tuple[str, int], dict[int, Tensor]] = {}
        self._moves: list[tuple[int, int]] = []

    def begin(self, examples: int) -> None:
        """See `Recorder`."""
        self._moves, self._batch = self._reservoir.begin(examples), {}

    def record(self, read: Read) -> None:
        """See `Recorder`."""
        maps = read.maps()
        if maps is None:
            return
        number = sum(name == read.name for name, _ in self._batch)
        self._batch[read.name, number] = {place: maps[example].clone() for example, place in self._moves}
        while self._reservoir.size > 1 and self._values() > SAMPLED_VALUES:
            self._halve()

    def _values(self) -> int:
        staged = sum(m.numel() for of_call in self._batch.values() for m in of_call.values())
        return max(staged, sum(m.numel() for kept in self._kept for m in kept.values()))

    def _halve(self) -> None:
        size = self._reservoir.size // 2
        self._reservoir.shrink(size)
        self._moves = [(example, place) for example, place in self._moves if place < size]
        self._kept = self._kept[:size]
        for of_call in self._batch.values():
            for place in [place for place in of_call if place >= size]:
                del of_call[place]

    def staged(self) -> Sequence[Tensor]:
        """See `Recorder`."""
        return [m for of_call in self._batch.values() for m in of_call.values()]

    def commit(self) -> None:
        """See `Recorder`."""
        self._reservoir.commit()
        for _, place in self._moves:
            self._kept[place] = {call: of_call[place] for call, of_call in self._batch.items()}

    def maps(self) -> dict[tuple[str, int], Tensor]:
        """(reader, how often it was called before) -> (examples, size, height, width), those of one shape."""
        found: dict[tuple[str, int], list[Tensor]] = {}
        for kept in self._kept:
            for call, values in kept.items():
                found.setdefault(call, []).append(values)
        return {call: torch.stack([m for m in values if m.shape == values[0].shape]) for call, values in found.items()}


@final
class MeanSample:
    """(examples, slots) means of what the readers get, of a sample of examples.

    Args:
        slots: numbers of the channels.
        device: of the means.
    """

    def __init__(self, slots: Slots, device: torch.device) -> None:
        size = max(1, min(SAMPLED_MEANS, SAMPLED_VALUES // slots.number))
        self._reservoir, self._filled = Reservoir(size), 0
        self._kept = torch.zeros(size, slots.number, device=device)
        self._sums, self._counts = self._kept[:0].double(), self._kept[:0].double()
        self._moves: list[tuple[int, int]] = []

    def begin(self, examples: int) -> None:
        """See `Recorder`."""
        self._moves = self._reservoir.begin(examples)
        self._sums = torch.zeros(examples, self._kept.shape[1], dtype=torch.float64, device=self._kept.device)
        self._counts = torch.zeros_like(self._sums[0])

    def record(self, read: Read) -> None:
        """See `Recorder`."""
        maps = read.maps()
        if maps is None:
            return
        positions = maps.shape[2] * maps.shape[3]
        self._sums.index_add_(1, read.slots, maps.sum(dim=(2, 3), dtype=torch.float64))
        self._counts.index_add_(0, read.slots, torch.full_like(read.slots, positions, dtype=torch.float64))

    def staged(self) -> Sequence[Tensor]:
        """See `Recorder`."""
        return (self._sums,)

    def commit(self) -> None:
        """See `Recorder`."""
        self._reservoir.commit()
        means = (self._sums / self._counts.clamp(min=1)).to(self._kept.dtype)
        for example, place in self._moves:
            self._kept[place] = means[example]
            self._filled = max(self._filled, place + 1)

    def means(self) -> Tensor:
        """(examples, slots)."""
        return self._kept[: self._filled]
