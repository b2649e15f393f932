"""Labelled examples, and the three splits that a search needs: train, validation, test.

Longer than others, as splits of every kind are held to one interface, and read beside it.
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast, final

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    TensorDataset,
    default_collate,
)

from autoprune.errors import ConfigError, DataError, blame
from autoprune.randomness import isolated

_STORED = 4096
"""So many examples are looked at together."""


class ImageTransform(ABC):
    """What a recipe does to images before the augmentation of their data set.

    Attributes:
        then_own: whether that comes after it.
    """

    then_own: bool = True

    @abstractmethod
    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return changed copies of (N, C, H, W) images in bytes."""


class Split(ABC):
    """Labelled examples that can be read again and again; reading leaves the global random state alone."""

    @abstractmethod
    def __len__(self) -> int:
        """The number of examples, at least 1."""

    @abstractmethod
    def batches(
        self,
        batch_size: int,
        *,
        seed: int | None = None,
        augment: bool | ImageTransform = False,
        limit: int | None = None,
    ) -> Iterator[Any]:
        """Yield (inputs (N, *input_shape), targets (N, ...)) on the CPU; the last batch may be smaller.

        Splits of tasks other than classification yield a `Batch`, inputs and targets of any nesting: see `as_batch`.

        Args:
            batch_size: examples per batch, at least 1.
            seed: None reads in stored order; a seed fixes the shuffling and the augmentation.
            augment: apply the split's augmentation, if it has one, or something else before it; needs a seed.
            limit: read only the first `limit` stored examples.

        Raises:
            ConfigError: a batch size or limit below 1, or augmentation without a seed.
        """

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Changes when the examples do."""

    @property
    def transforms(self) -> bool:
        """Whether `augment` may be an `ImageTransform`; where it may not, that counts as True."""
        return False

    def stored(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield (places in the owner's order, inputs, targets) of all examples that lie in memory as they are read."""
        yield from ()


@final
@dataclass(frozen=True, slots=True)
class Augmentation:
    """Random crop after padding with black, then a horizontal flip of every second image.

    Attributes:
        pad: pixels added on each side before the crop back to size; 4 for 32 x 32 in the papers.
        flip: whether a mirror image still shows the same class (not so for digits).
    """

    pad: int
    flip: bool

    def __post_init__(self) -> None:
        if self.pad < 0:
            raise ConfigError(f"augmentation: pad must be 0 or more pixels, got {self.pad}")

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return augmented copies of the (N, C, H, W) images."""
        n, _, height, width = images.shape
        top, left = torch.randint(2 * self.pad + 1, (2, n), generator=generator)
        mirrored = torch.rand(n, generator=generator) < 0.5
        windows = F.pad(images, (self.pad,) * 4).unfold(2, height, 1).unfold(3, width, 1)
        cropped = windows[torch.arange(n), :, top, left]
        return torch.where(mirrored[:, None, None, None], cropped.flip(3), cropped) if self.flip else cropped


@final
class TensorSplit(Split):
    """Images in memory, one byte per value, normalised batch by batch.

    Args:
        images: (N, C, H, W) uint8.
        labels: (N,) int64, class numbers.
        mean: per channel, of values scaled to 0..1.
        std: per channel, of values scaled to 0..1; above 0.
        augmentation: what `augment=True` does.

    Raises:
        DataError: wrong shapes or types, no images, or no usable mean and standard deviation.
    """

    def __init__(
        self, images: Tensor, labels: Tensor, *, mean: Sequence[float], std: Sequence[float], augmentation: Augmentation
    ) -> None:
        if images.dtype != torch.uint8 or images.ndim != 4 or labels.dtype != torch.int64:
            raise DataError(
                f"images must be uint8 (N, C, H, W) and labels int64 (N,), "
                f"got {images.dtype} {tuple(images.shape)} and {labels.dtype} {tuple(labels.shape)}"
            )
        if labels.shape != images.shape[:1] or not len(labels):
            raise DataError(f"{len(images)} images and labels of shape {tuple(labels.shape)}: give one label per image")
        if not all(map(math.isfinite, (*mean, *std))) or min(std) <= 0:
            raise DataError(f"mean must be finite and std above 0 for every channel, got {[*mean]} and {[*std]}")
        self._images, self._labels, self._augmentation = images, labels, augmentation
        self._mean = 255 * torch.tensor(mean).view(-1, 1, 1)
        self._std = 255 * torch.tensor(std).view(-1, 1, 1)

    def __len__(self) -> int:
        return len(self._labels)

    @property
    def labels(self) -> Tensor:
        """(N,) int64 in stored order."""
        return self._labels

    def batches(
        self,
        batch_size: int,
        *,
        seed: int | None = None,
        augment: bool | ImageTransform = False,
        limit: int | None = None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """See `Split.batches`; inputs are float32, normalised."""
        if augment and seed is None:
            raise ConfigError("augmentation is random: pass a seed with augment=True")
        generator = torch.Generator().manual_seed(seed or 0)
        order = _order(len(self), generator if seed is not None else None, batch_size=batch_size, limit=limit)
        for chosen in torch.split(order, batch_size):
            images = self._images[chosen]
            if isinstance(augment, ImageTransform):
                images = augment(images, generator)
            if augment is True or (isinstance(augment, ImageTransform) and augment.then_own):
                images = self._augmentation(images, generator)
            yield (images - self._mean) / self._std, self._labels[chosen]

    @property
    def transforms(self) -> bool:
        """Always."""
        return True

    def stored(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """See `Split.stored`; the pixels as bytes."""
        yield torch.arange(len(self)), self._images, self._labels

    @cached_property
    def fingerprint(self) -> str:
        """Hash of every pixel and label, and of how they are normalised and augmented."""
        return digest(self._images, self._labels, self._mean, self._std, repr(self._augmentation))


@final
class LoaderSplit(Split):
    """A user's data set or loader of (input, target) pairs of tensors.

    A `Dataset` is shuffled and batched here; a `DataLoader` is iterated as it is: order and batch size are its own,
    and a seed only fixes what it draws. Both augment as their owner wrote them, whatever `augment` says.

    Args:
        source: the data set or loader.
        role: "train", "validation" or "test", for messages; "" where it is none of them.

    Raises:
        DataError: the source has no length or no examples, or (on reading) a batch is not a pair of tensors.
    """

    def __init__(self, source: Dataset[Any] | DataLoader[Any], role: str = "") -> None:
        dataset = source.dataset if isinstance(source, DataLoader) else source
        sized = source.sampler if isinstance(source, DataLoader) else source
        what = f"{role}{role and ': '}{type(dataset).__name__}"
        if isinstance(dataset, IterableDataset) or not hasattr(sized, "__len__"):
            raise DataError(f"{what} has no length: give a data set with __len__ and __getitem__, or its loader")
        self._source = source
        with blame(DataError, f"{what} cannot tell its length", then="Correct the data set."):
            self._length = len(cast("Sized", sized))
        if not self._length:
            raise DataError(f"{what} is empty: give at least one example")

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
        """See `Split.batches`; a loader ignores `batch_size`, and its `limit` counts in its own order."""
        for batch in self.read(batch_size, seed=seed, limit=limit):
            inputs, targets = _pair(batch)
            yield inputs[:limit], targets[:limit]
            if limit is not None:
                limit -= len(inputs)
                if limit <= 0:
                    return

    def read(self, batch_size: int, *, seed: int | None = None, limit: int | None = None) -> Iterator[object]:
        """Yield batches as the source gives them; of a loader all, whatever `limit` says."""
        order = self.order(batch_size, seed=seed, limit=limit)
        if isinstance(self._source, DataLoader):
            loader = self._source
        else:
            loader = DataLoader(Subset(self._source, order.tolist()), batch_size)
        own = [loader.generator] if loader.generator is not None else []
        yield from isolated(loader, *own, seed=seed or 0)

    def order(self, batch_size: int, *, seed: int | None = None, limit: int | None = None) -> Tensor:
        """Numbers of the examples in the order in which they are read; of a data set."""
        shuffler = None if seed is None else torch.Generator().manual_seed(seed)
        return _order(len(self), shuffler, batch_size=batch_size, limit=limit)

    def stored(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """See `Split.stored`: of a `TensorDataset`, or of parts of one, that nothing changes on the way."""
        dataset: object = self._source
        if isinstance(dataset, DataLoader):
            every = isinstance(dataset.sampler, SequentialSampler | RandomSampler) and not dataset.drop_last
            as_it_is = type(dataset.batch_sampler) is BatchSampler and dataset.collate_fn is default_collate
            dataset = dataset.dataset if every and as_it_is else None
        rows = torch.arange(len(self))
        while type(dataset) is Subset:
            rows = torch.as_tensor(dataset.indices)[rows]
            dataset = dataset.dataset
        if type(dataset) is TensorDataset and len(dataset.tensors) == 2:
            for chosen in torch.split(rows.sort().values, _STORED):  # the first wrong row is named
                yield chosen, dataset.tensors[0][chosen], dataset.tensors[1][chosen]

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the length and of one batch drawn under a fixed seed; reading everything could take hours."""
        inputs, targets = next(self.batches(64, seed=0))
        return digest(str(len(self)), inputs, targets)


@final
@dataclass(frozen=True)
class DataSplits:
    """What a search reads.

    Attributes:
        name: for reports.
        train: examples to fit weights on.
        validation: examples to compare candidates on.
        test: examples touched once, at the end; None where there are none.
        classes: number of classes, None if unknown.
        input_shape: of one input, without the batch.
    """

    name: str
    train: Split
    validation: Split
    test: Split | None
    classes: int | None
    input_shape: tuple[int, ...]

    @property
    def fingerprint(self) -> str:
        """Changes when a split does; of a user's own data set, as far as one batch of it shows (see `LoaderSplit`)."""
        return digest(*(split.fingerprint if split else "" for split in (self.train, self.validation, self.test)))


def holds_nothing(given: object) -> bool:
    """Whether it is a number below 1, or something in memory without a first entry, given in place of examples."""
    if isinstance(given, int | float):
        return given < 1
    try:
        return isinstance(given, Sized) and len(given) == 0
    except TypeError:  # a tensor of one number
        return False


def digest(*parts: Tensor | str) -> str:
    """SHA-256 of tensors (type, shape, values) and texts, in hexadecimal."""
    total = hashlib.sha256()
    for part in parts:
        header = part if isinstance(part, str) else f"{part.dtype} {tuple(part.shape)}"
        total.update(f"{len(header)} {header}".encode())
        if isinstance(part, Tensor):
            total.update(part.detach().cpu().flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()


def _order(n: int, generator: torch.Generator | None, *, batch_size: int, limit: int | None) -> Tensor:
    """Positions to read: the first `limit`, shuffled if there is a generator."""
    for name, value in (("batch_size", batch_size), ("limit", limit)):
        if value is not None and value < 1:
            raise ConfigError(f"{name} must be at least 1, got {value}")
    count = n if limit is None else min(limit, n)
    return torch.arange(count) if generator is None else torch.randperm(count, generator=generator)


def _pair(batch: object) -> tuple[Tensor, Tensor]:
    if isinstance(batch, tuple | list) and len(batch) == 2 and all(isinstance(part, Tensor) for part in batch):
        inputs, targets = batch
        if inputs.ndim and targets.ndim:
            return inputs, targets
        raise DataError(
            f"a batch must hold its examples along the first dimension, got input {tuple(inputs.shape)} and "
            f"target {tuple(targets.shape)}; give the loader a batch size"
        )
    raise DataError(
        f"a batch must be a pair of tensors (input, target), got {_told(batch)}; let the data set return (input, class "
        f"number), choose the task multilabel, regression, segmentation or detection, or pass score_func(model) and "
        f"train_func(model, epochs, seed)"
    )


def _told(batch: object) -> str:
    """What a batch holds, one level deep."""
    if isinstance(batch, Tensor):
        return f"inputs of shape {tuple(batch.shape)} without targets"
    if isinstance(batch, Mapping):
        return f"{type(batch).__name__} with the keys {', '.join(map(str, [*batch][:8]))}"
    if isinstance(batch, tuple | list):
        parts = [str(tuple(p.shape)) if isinstance(p, Tensor) else type(p).__name__ for p in batch[:8]]
        return f"{type(batch).__name__} of {len(batch)} ({', '.join(parts)})"
    return type(batch).__name__
