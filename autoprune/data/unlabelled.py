"""Inputs without targets, or with targets that are ignored: what a search by the base network's outputs reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import Any, final

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from autoprune.data.base import DataSplits, LoaderSplit, Split, digest, holds_nothing
from autoprune.data.batch import Batch
from autoprune.data.labelled import check_inputs, no_batch
from autoprune.errors import DataError, blame

HELD_OUT = 5
"""Of inputs that come as one, every fifth is for scores, the others are for calibration."""

_ROLES = ("train", "validation", "test")


@final
class Inputs:
    """Inputs that can be read again and again; of a pair (inputs, targets) the targets are dropped.

    Args:
        source: a `Split`, a data set, or a loader; a batch is a tensor, a mapping of keyword inputs, or a tuple or list
            that starts with the inputs and holds at most the targets besides.
        role: "train", "validation" or "test", for messages.

    Raises:
        DataError: the source has no length, or no examples.
    """

    def __init__(self, source: Split | Dataset[Any] | DataLoader[Any], role: str) -> None:
        self._source = source if isinstance(source, Split) else LoaderSplit(source, role)
        self._role = role

    def __len__(self) -> int:
        return len(self._source)

    def batches(self, batch_size: int, *, seed: int | None = None, limit: int | None = None) -> Iterator[Batch]:
        """Yield batches on the CPU; arguments as those of `Split.batches`.

        Raises:
            DataError: a batch cannot be read or is not as it must be; names role and batch.
        """
        source = self._source
        reads = source.read if isinstance(source, LoaderSplit) else source.batches
        read: Iterator[object] = iter(reads(batch_size, seed=seed, limit=limit))
        left = len(self) if limit is None else limit
        for number in count():
            where = f"{self._role}, batch {number} as read"
            with blame(DataError, f"{where}, cannot be read", then="Correct the data set."):
                found = next(read, None) if left > 0 else None
            if found is None:
                break
            batch = Batch(_inputs_of(found, where)).first(left)
            for leaf in pytree.tree_leaves(batch.inputs):
                if isinstance(leaf, Tensor):
                    check_inputs(leaf, where)
            left -= len(batch)
            yield batch
        if not number:
            raise no_batch(self._role)

    @cached_property
    def fingerprint(self) -> str:
        """Of a split, its own; else a hash of the length and of one batch drawn under a fixed seed."""
        if not isinstance(self._source, LoaderSplit):
            return self._source.fingerprint
        first = next(self.batches(64, seed=0)).inputs
        return digest(str(len(self)), *(leaf for leaf in pytree.tree_leaves(first) if isinstance(leaf, Tensor)))


@final
@dataclass(frozen=True, eq=False)
class UnlabelledSplits:
    """What a search without labels reads.

    Attributes:
        name: for reports.
        train: to calibrate cut networks on.
        validation: to compare candidates on.
        test: read once, at the end; None where there are none.
    """

    name: str
    train: Inputs
    validation: Inputs
    test: Inputs | None

    @property
    def fingerprint(self) -> str:
        """Changes when a part does."""
        parts = (self.train, self.validation, self.test)
        return digest("unlabelled", *(part.fingerprint if part else "" for part in parts))


def unlabelled_splits(data: object, *, name: str = "user data") -> UnlabelledSplits:
    """Turn what a user has into `UnlabelledSplits`.

    Args:
        data: `DataSplits`; a mapping or a tuple of train, validation and optionally test; or one source for all, of
            which every fifth example is held out for scores. A source is a data set, a loader, a tensor of inputs, or a
            list of tensors, each a batch of inputs.
        name: what to call it.

    Raises:
        DataError: anything else, or a single source that has not two examples or cannot be divided.
    """
    if isinstance(data, DataSplits):
        parts: dict[str, Any] = {role: getattr(data, role) for role in _ROLES}
        name = data.name
    elif isinstance(data, Mapping):
        parts = dict(data)
    elif (listed := _roles(data)) is not None:
        parts = dict(zip(_ROLES, listed, strict=False)) if len(listed) <= len(_ROLES) else {}
    else:
        parts = _divided(_source(data))
    if set(parts) - set(_ROLES) or any(parts.get(role) is None for role in _ROLES[:2]):
        raise DataError(
            f"data must have 'train' and 'validation' and may have 'test' (a mapping, or a tuple in this order), or be "
            f"one loader, data set or tensor of inputs for all; got {type(data).__name__} of {[*map(str, parts)]}"
        )
    made = {
        role: Inputs(_shuffled(_source(part, role), role), role) for role, part in parts.items() if part is not None
    }
    return UnlabelledSplits(name, made["train"], made["validation"], made.get("test"))


def has_targets(data: object) -> bool:
    """Whether data are as classification needs them: a pair (inputs, targets) in each batch of named parts."""
    if isinstance(data, DataSplits):
        return True
    parts = list(data.values()) if isinstance(data, Mapping) else _roles(data)
    if not parts or not isinstance(parts[0], Split | Dataset | DataLoader):
        return False
    if isinstance(parts[0], Split):
        return True
    with blame(DataError, "the first training example cannot be read", then="Correct the data set."):
        first = next(LoaderSplit(parts[0]).read(1, seed=0, limit=1), None)
    return isinstance(first, tuple | list) and len(first) == 2


def _roles(data: object) -> list[Any] | None:
    """Train, validation and test in this order, if that is what these are; a list of tensors is one of batches."""
    listed = isinstance(data, list) and bool(data) and isinstance(data[0], Split | Dataset | DataLoader)
    return list(data) if isinstance(data, tuple) or listed else None  # type: ignore[call-overload]


def _source(given: object, role: str = "inputs") -> Split | Dataset[Any] | DataLoader[Any]:
    if isinstance(given, Split | Dataset | DataLoader):
        return given
    if isinstance(given, Tensor) and given.ndim and len(given):
        return TensorDataset(given)
    if isinstance(given, list) and given and all(isinstance(one, Tensor) and one.ndim for one in given):
        with blame(DataError, "a list of batches must hold inputs of one shape", then="Give a data set or a loader."):
            return TensorDataset(torch.cat(given))
    if holds_nothing(given):
        shown = f"a tensor of shape {tuple(given.shape)}" if isinstance(given, Tensor) else repr(given)
        raise DataError(f"{role}: empty, it is {shown}; give at least one example")
    what = f"a tensor of shape {tuple(given.shape)}" if isinstance(given, Tensor) else type(given).__name__
    raise DataError(
        f"inputs must be a data set, a loader, a tensor of inputs (at least one) or a list of them, got {what}; "
        f"a generator can be read only once: make it a list"
    )


def _divided(source: Split | Dataset[Any] | DataLoader[Any]) -> dict[str, Any]:
    """Train and validation of one source, after a fixed shuffle; each example belongs to one of them."""
    dataset: Any = source.dataset if isinstance(source, DataLoader) else source
    if isinstance(source, Split) or (isinstance(source, DataLoader) and source.batch_size is None):
        raise DataError(
            f"{type(source).__name__} cannot be divided into inputs for calibration and for scores; give "
            f"data=(train, validation)"
        )
    total = len(LoaderSplit(source))  # refuses what has no length
    if total < 2 or total > len(dataset):
        raise DataError(f"{total} inputs cannot be divided into some for calibration and some for scores; give more")
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0)).tolist()
    held_out = max(1, len(order) // HELD_OUT)
    chosen = {"validation": Subset(dataset, order[:held_out]), "train": Subset(dataset, order[held_out:])}
    if not isinstance(source, DataLoader):
        return dict(chosen)
    options: dict[str, Any] = {"num_workers": source.num_workers, "collate_fn": source.collate_fn}
    return {role: DataLoader(part, source.batch_size, **options) for role, part in chosen.items()}


def _shuffled(source: Split | Dataset[Any] | DataLoader[Any], role: str) -> Split | Dataset[Any] | DataLoader[Any]:
    """In a fixed order, so that the first n examples of what is scored are a fair sample; loaders have their own."""
    if role == "train" or isinstance(source, Split | DataLoader):
        return source
    sized = len(LoaderSplit(source, role))
    return Subset(source, torch.randperm(sized, generator=torch.Generator().manual_seed(0)).tolist())


def _inputs_of(batch: object, where: str) -> Any:
    """The inputs of a batch; its targets are dropped."""
    listed = isinstance(batch, tuple | list)
    if listed and not 1 <= len(batch) <= 2:  # type: ignore[arg-type]  # known by listed
        raise DataError(
            f"{where}: a batch must be the inputs, or (inputs, targets), got {len(batch)} things; "  # type: ignore[arg-type]
            f"put several inputs into one tuple, ((first, second), targets)"
        )
    inputs = batch[0] if listed else batch  # type: ignore[index]
    leaves: Iterable[object] = pytree.tree_leaves(inputs)
    if not any(isinstance(leaf, Tensor) and leaf.ndim for leaf in leaves):
        raise DataError(f"{where}: a batch must hold tensors of inputs, got {type(inputs).__name__}; set collate_fn")
    return inputs
