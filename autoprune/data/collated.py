"""Examples of any task: collated, checked and read batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import count
from typing import Any, TypeAlias, final

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils.data import DataLoader, Dataset, Subset, default_collate

from autoprune.data.base import DataSplits, ImageTransform, LoaderSplit, Split, digest
from autoprune.data.batch import Batch, as_batch
from autoprune.data.labelled import check_inputs, no_batch
from autoprune.data.pairs import pair_of
from autoprune.errors import DataError, blame
from autoprune.randomness import isolated

Collate: TypeAlias = Callable[[Sequence[Any]], Any]
"""Examples as the data set gives them -> a `Batch`, or a pair (inputs, targets)."""

Check: TypeAlias = Callable[[Batch, str], Batch]
"""(a batch, where it comes from) -> the batch as the task needs it; raises DataError where it is not."""

Drawn: TypeAlias = Callable[[Any], Batch]
"""What a loader gives -> the batch that it is; raises DataError where it is none."""

_FIRST = 64
"""So many examples make a fingerprint."""


@final
class Collated(Split):
    """Examples that are collated and checked as a task needs them; yields a `Batch` each.

    Args:
        source: a `Split`; a data set, shuffled and batched here; or a loader, iterated as it is, with its own batch
            size, order and collation.
        role: "train", "validation" or "test", for messages.
        collate: see `Collate`; of a data set.
        check: see `Check`.
        drawn: what a loader gives -> a `Batch`; None: pairs (inputs, targets), and mappings that name them.

    Raises:
        DataError: the source has no length, or no examples.
    """

    def __init__(
        self,
        source: Split | Dataset[Any] | DataLoader[Any],
        role: str,
        *,
        collate: Collate,
        check: Check,
        drawn: Drawn | None = None,
    ) -> None:
        self._source = source if isinstance(source, Split) else LoaderSplit(source, role)
        self._dataset = None if isinstance(source, Split | DataLoader) else source
        self._role, self._collate, self._check = role, collate, check
        self._batch_of = drawn or paired

    def __len__(self) -> int:
        return len(self._source)

    def batches(
        self,
        batch_size: int,
        *,
        seed: int | None = None,
        augment: bool | ImageTransform = False,
        limit: int | None = None,
    ) -> Iterator[Batch]:
        """See `Split.batches`.

        Raises:
            DataError: a batch cannot be read, or is not as the task needs it; names role and batch.
        """
        read = self._read(batch_size, seed=seed, augment=augment, limit=limit)
        left = len(self) if limit is None else limit
        for number in count():
            where = f"{self._role}, batch {number} as read"
            with blame(DataError, f"{where}, cannot be read", then="Correct the data set."), _told(where):
                drawn = next(read, None) if left > 0 else None
                batch = None if drawn is None else self._batch_of(drawn).first(left)
            if batch is None:
                break
            batch = self._check(batch, where)
            for leaf in pytree.tree_leaves(batch.inputs):
                if isinstance(leaf, Tensor):
                    check_inputs(leaf, where)
            left -= len(batch)
            yield batch
        if not number:
            raise no_batch(self._role)

    def _read(self, batch_size: int, *, seed: int | None, augment: Any, limit: int | None) -> Iterator[Any]:
        if isinstance(self._source, LoaderSplit):
            if self._dataset is None:
                yield from self._source.read(batch_size, seed=seed, limit=limit)
                return
            order = self._source.order(batch_size, seed=seed, limit=limit)
            loader = DataLoader(Subset(self._dataset, order.tolist()), batch_size, collate_fn=self._collate)
            yield from isolated(loader, seed=seed or 0)
            return
        yield from self._source.batches(batch_size, seed=seed, augment=augment, limit=limit)

    @property
    def transforms(self) -> bool:
        """As a split; others come ready made."""
        return self._source.transforms

    @cached_property
    def fingerprint(self) -> str:
        """Of a split, its own; else a hash of the length and of one batch drawn under a fixed seed."""
        if not isinstance(self._source, LoaderSplit):
            return self._source.fingerprint
        first = next(self.batches(_FIRST, seed=0))
        leaves = pytree.tree_leaves((first.inputs, first.targets))
        return digest(str(len(self)), *(leaf if isinstance(leaf, Tensor) else repr(leaf) for leaf in leaves))


def collated_splits(
    parts: Mapping[str, Any], *, name: str, collate: Collate, check: Check, drawn: Drawn | None = None
) -> DataSplits:
    """The splits of a task.

    Args:
        parts: train, validation and maybe test, as `autoprune.data.parts_from` gives them.
        name: for reports.
        collate: see `Collate`.
        check: see `Check`.
        drawn: of batches of loaders, see `Collated`.
    """
    made = {
        role: Collated(in_fixed_order(part, role), role, collate=collate, check=check, drawn=drawn)
        for role, part in parts.items()
        if part is not None
    }
    first = next(made["train"].batches(1, seed=0, limit=1))
    shape = next((tuple(leaf.shape[1:]) for leaf in pytree.tree_leaves(first.inputs) if isinstance(leaf, Tensor)), ())
    return DataSplits(name, made["train"], made["validation"], made.get("test"), classes=None, input_shape=shape)


def in_fixed_order(source: Any, role: str) -> Any:
    """A data set that scores are taken on, shuffled once: many are sorted, and the first n are to be a fair sample."""
    if role == "train" or isinstance(source, Split | DataLoader):
        return source
    total = len(LoaderSplit(source, role))
    return Subset(source, torch.randperm(total, generator=torch.Generator().manual_seed(0)).tolist())


def stacked(examples: Sequence[Any], target_of: Callable[[Any], Any] | None = None) -> Batch:
    """The usual collation: pairs (input, target) of any nesting, stacked.

    Args:
        examples: as the data set gives them.
        target_of: see `pair_of`.

    Raises:
        DataError: examples that are no pairs, or whose tensors differ in shape.
    """
    pairs = [pair_of(example, target_of) for example in examples]
    with blame(
        DataError, "examples cannot be stacked", then="Give all of them one shape, or a loader with collate_fn."
    ):
        inputs, targets = default_collate([(one, other) for one, other in pairs])
    return Batch(_positional(inputs), targets)


def _positional(inputs: Any) -> Any:
    """Several positional inputs as a tuple, of which a collation makes a list."""
    return tuple(inputs) if isinstance(inputs, list) else inputs


@contextmanager
def _told(where: str) -> Iterator[None]:
    """Inside, an error of data says where they come from."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{where}: {error}") from error


def paired(drawn: Any) -> Batch:
    """A batch of a loader: a pair (inputs, targets), or a mapping that names its targets.

    Raises:
        DataError: something else.
    """
    if isinstance(drawn, Batch):
        return drawn
    if isinstance(drawn, Mapping):
        return Batch(*pair_of(drawn))
    if not isinstance(drawn, tuple | list) or len(drawn) != 2:
        raise DataError(f"a batch must be (inputs, targets), got {type(drawn).__name__}; set the loader's collate_fn")
    return as_batch(drawn)
