"""Inputs without targets, in every form that a user has them in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from autoprune.data import load_data, splits_from
from autoprune.data.unlabelled import Inputs, has_targets, unlabelled_splits
from autoprune.errors import DataError

ROWS = torch.arange(50.0)[:, None]
PAIRS = TensorDataset(ROWS, torch.zeros(50).long())


def numbers(inputs: Inputs, **options: Any) -> list[int]:
    return [int(x) for batch in inputs.batches(8, **options) for x in batch.inputs.flatten().tolist()]


@pytest.mark.parametrize(
    "data",
    [
        ROWS,
        TensorDataset(ROWS),
        PAIRS,
        DataLoader(TensorDataset(ROWS), 7, shuffle=True),
        DataLoader(PAIRS, 7),
        list(ROWS.split(9)),
    ],
    ids=["tensor", "data set", "pairs", "loader", "loader of pairs", "list of batches"],
)
def test_one_source_is_divided_into_calibration_and_scores(data: object) -> None:
    splits = unlabelled_splits(data)
    train, validation = numbers(splits.train), numbers(splits.validation)
    assert (len(train), len(validation)) == (40, 10) == (len(splits.train), len(splits.validation))
    assert sorted(train + validation) == list(range(50))
    assert splits.test is None
    assert numbers(unlabelled_splits(data).validation) == validation
    assert splits.fingerprint == unlabelled_splits(data).fingerprint


def test_named_parts_are_read_as_they_are() -> None:
    sets = [TensorDataset(part) for part in (ROWS, ROWS[:20], ROWS[:4])]
    for data in ((ROWS, ROWS[:20], ROWS[:4]), sets, {"train": PAIRS, "validation": ROWS[:20], "test": ROWS[:4]}):
        splits = unlabelled_splits(data)
        assert numbers(splits.train) == list(range(50))
        assert sorted(numbers(splits.validation)) == list(range(20)) != numbers(splits.validation)
        assert splits.test is not None
    digits = load_data("digits")
    known = unlabelled_splits(digits)
    assert (known.name, len(known.train)) == (digits.name, len(digits.train))
    assert known.fingerprint != digits.fingerprint


def test_the_first_examples_are_those_of_all() -> None:
    inputs = unlabelled_splits((PAIRS, DataLoader(PAIRS, 7))).validation
    assert numbers(inputs, limit=9) == numbers(inputs)[:9]
    assert [len(batch) for batch in inputs.batches(8, limit=9)] == [7, 2]
    shuffled = unlabelled_splits((PAIRS, PAIRS)).train
    assert numbers(shuffled, seed=1) == numbers(shuffled, seed=1) != numbers(shuffled, seed=2)


def test_inputs_of_any_nesting_are_kept() -> None:
    class Named(Dataset[Any]):
        def __len__(self) -> int:
            return 6

        def __getitem__(self, index: int) -> Any:
            return {"x": torch.zeros(2), "y": torch.ones(3)}

    class Positional(Named):
        def __getitem__(self, index: int) -> Any:
            return (torch.zeros(2), torch.ones(3)), 1

    (batch,) = unlabelled_splits((Named(), Named())).validation.batches(9)
    assert {name: tuple(x.shape) for name, x in batch.inputs.items()} == {"x": (6, 2), "y": (6, 3)}
    (batch,) = unlabelled_splits((Positional(), Positional())).validation.batches(9, limit=4)
    assert [tuple(x.shape) for x in batch.inputs] == [(4, 2), (4, 3)]


def test_whether_there_are_targets_is_seen_at_the_first_batch() -> None:
    assert has_targets((PAIRS, PAIRS))
    assert has_targets([PAIRS, PAIRS])
    assert has_targets(splits_from((PAIRS, PAIRS)))
    assert has_targets({"train": DataLoader(PAIRS, 4), "validation": PAIRS})
    for data in (ROWS, (ROWS, ROWS), TensorDataset(ROWS), DataLoader(PAIRS), (TensorDataset(ROWS), PAIRS), [ROWS]):
        assert not has_targets(data)


class Endless(IterableDataset[Tensor]):
    def __iter__(self) -> Iterator[Tensor]:
        while True:
            yield torch.zeros(1)


class Triples(Dataset[Any]):
    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Any:
        return torch.zeros(1), torch.zeros(1), torch.zeros(1)


class Lost(Triples):
    def __getitem__(self, index: int) -> Any:
        raise OSError("disk gone")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (3, r"a tensor of inputs \(at least one\) or a list of them, got int"),
        ("digits", "got str"),
        (ROWS[:0], r"empty, it is a tensor of shape \(0, 1\)"),
        (iter([ROWS]), "can be read only once"),
        ([], r"inputs: empty, it is \[\]"),
        ([torch.zeros(2, 3), torch.zeros(2, 4)], "inputs of one shape"),
        (Endless(), "has no length"),
        (DataLoader(Endless(), 2), "has no length"),
        (ROWS[:1], "1 inputs cannot be divided"),
        (DataLoader(PAIRS, batch_size=None), "DataLoader cannot be divided"),
        ({"train": ROWS}, "must have 'train' and 'validation'"),
        ({"train": ROWS, "validation": ROWS, "tests": ROWS}, "must have 'train' and 'validation'"),
        ((ROWS,), "must have 'train' and 'validation'"),
        ((Triples(), Triples()), "got 3 things; put several inputs into one tuple"),
        ((Lost(), Lost()), "train, batch 0 as read, cannot be read: OSError: disk gone"),
        ((torch.full((4, 1), torch.nan), ROWS), "train, batch 0 as read holds NaN"),
        ((DataLoader(PAIRS, 64, drop_last=True), ROWS), "gives no batch at all"),
    ],
)
def test_data_that_cannot_be_used_are_one_clear_error(data: object, message: str) -> None:
    def read() -> None:
        list(unlabelled_splits(data).train.batches(4))

    with pytest.raises(DataError, match=message):
        read()
