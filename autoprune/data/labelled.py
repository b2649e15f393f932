"""Examples as classification needs them: checked when data enter, and again batch by batch as they are read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from typing import final

import torch
from torch import Tensor

from autoprune.data.base import DataSplits, ImageTransform, Split
from autoprune.errors import DataError, blame

OTHER_TASKS = (
    "for other targets choose the task multilabel, regression, segmentation or detection, or call autoprune.search "
    "from Python with your own score_func and train_func"
)


@final
class Labelled(Split):
    """A split whose batches are checked: finite inputs, one class number for each.

    Class numbers of any integer type are given as int64; numbers with a fraction are refused even where it is 0, since
    such targets are nearly always of another task.

    Args:
        split: what is read.
        role: "train", "validation" or "test", for messages.
        classes: how many there are; None where that is not known.
    """

    def __init__(self, split: Split, role: str, *, classes: int | None = None) -> None:
        self._split, self._role, self._classes = split, role, classes

    def __len__(self) -> int:
        return len(self._split)

    def batches(
        self,
        batch_size: int,
        *,
        seed: int | None = None,
        augment: bool | ImageTransform = False,
        limit: int | None = None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """See `Split.batches`; targets are int64 (N,).

        Raises:
            DataError: an example cannot be read or is not as it must be; names split, batch and row.
        """
        read = self._split.batches(batch_size, seed=seed, augment=augment, limit=limit)
        for number in count():
            with blame(DataError, f"{self._role}: batch {number} cannot be read", then="Correct the data set."):
                batch = next(read, None)
            if batch is None:
                break
            inputs, targets = batch
            yield inputs, self._checked(inputs, targets, f"{self._role}, batch {number} as read", None)
        if not number:
            raise no_batch(self._role)

    @property
    def transforms(self) -> bool:
        """As the split."""
        return self._split.transforms

    def check_stored(self) -> None:
        """Check all examples at once where they lie in memory as they are read; does nothing where they do not.

        Raises:
            DataError: as for `batches`; names the row.
        """
        for rows, inputs, targets in self._split.stored():
            self._checked(inputs, targets, self._role, rows)

    @property
    def fingerprint(self) -> str:
        """Of the split."""
        with blame(DataError, f"{self._role}: examples cannot be read", then="Correct the data set."):
            return self._split.fingerprint

    def _checked(self, inputs: Tensor, targets: Tensor, where: str, rows: Tensor | None) -> Tensor:
        """The class numbers as int64; `rows` are the places of the examples, if not those inside the batch."""

        def row(wrong: Tensor) -> str:
            place = int(wrong.nonzero()[0])
            return f"{where}, row {place if rows is None else int(rows[place])}"

        if inputs.ndim and not len(inputs):
            raise DataError(f"{where}: no examples; correct the data set, or the collate_fn of its loader")
        if targets.ndim != 1 or not inputs.ndim or len(targets) != len(inputs) or not len(targets):
            looks, remedy = _likely(targets)
            raise DataError(
                f"{where}: targets of shape {tuple(targets.shape)} for inputs of shape {tuple(inputs.shape)}{looks}; "
                f"classification needs one class number per example, targets of shape (N,). Change the data set: "
                f"{remedy}{OTHER_TASKS}"
            )
        if targets.is_floating_point() or targets.is_complex():
            raise DataError(
                f"{where}: targets of type {targets.dtype} (the first is {targets[0].item()}); classification needs "
                f"whole class numbers. If they are, convert them (targets.long()); {OTHER_TASKS}"
            )
        labels = targets.long()
        wrong = labels < 0 if self._classes is None else (labels < 0) | (labels >= self._classes)
        if wrong.any():
            allowed = "0 or more" if self._classes is None else f"0 to {self._classes - 1} for {self._classes} classes"
            raise DataError(
                f"{row(wrong)}: class number {int(labels[wrong][0])}; allowed are {allowed}. Number the classes from "
                f"0, leave out examples without a class, or give the model as many outputs as there are classes"
            )
        if (inputs.is_floating_point() or inputs.is_complex()) and not inputs.sum().isfinite():
            wrong = ~inputs.reshape(len(inputs), -1).isfinite().all(1)
            if wrong.any():  # the sum alone may be too large
                raise DataError(
                    f"{row(wrong)}: the input holds NaN or infinite values, as do {int(wrong.sum())} of {len(wrong)} "
                    f"inputs here; correct the data set or leave such examples out"
                )
        return labels


def _likely(targets: Tensor) -> tuple[str, str]:
    """What targets of a wrong shape look like, and what makes class numbers of them, where something does."""
    whole = not targets.is_floating_point() and not targets.is_complex()
    if targets.ndim > 1 and targets.numel() == len(targets):
        return ("", "squeeze the targets; ") if whole else (", which look like numbers (regression)", "")
    if targets.ndim == 2 and bool(((targets == 0) | (targets == 1)).all()):
        if bool((targets.sum(1) == 1).all()):
            return ", which look like one-hot rows", "give targets.argmax(1); "
        return ", which look like several labels at once", ""
    if targets.ndim > 2:
        return ", which look like a mask or a picture", ""
    return (", which look like numbers (regression)", "") if targets.ndim == 2 and not whole else ("", "")


def no_batch(what: str) -> DataError:
    """The error of a split whose loader gives nothing."""
    return DataError(f"{what} gives no batch at all; has its loader drop_last=True and less than one batch?")


def check_inputs(inputs: Tensor, where: str) -> None:
    """Check that inputs without targets are finite.

    Raises:
        DataError: they are not.
    """
    real = inputs.is_floating_point() or inputs.is_complex()
    if real and not inputs.sum().isfinite() and not torch.isfinite(inputs).all():
        raise DataError(f"{where} holds NaN or infinite inputs; correct the data set or leave such examples out")


def labelled(data: DataSplits, classes: int | None) -> DataSplits:
    """The same splits, each of them checked as it is read."""

    def checked(split: Split, role: str) -> Labelled:
        return Labelled(split, role, classes=classes)

    return replace(
        data,
        train=checked(data.train, "train"),
        validation=checked(data.validation, "validation"),
        test=None if data.test is None else checked(data.test, "test"),
    )
