"""What classification can be trained on and scored by: whole class numbers, one per example, of finite inputs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset, SubsetRandomSampler, TensorDataset, default_collate

from autoprune.data.base import Augmentation, LoaderSplit, TensorSplit
from autoprune.data.labelled import Labelled, check_inputs
from autoprune.errors import DataError

X = torch.randn(40, 1, 4, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(40) % 4


class Lazy(Dataset[Any]):
    """Examples that nobody can look at before they are read."""

    def __init__(self, inputs: Tensor, targets: Tensor, *, lost: int = -1) -> None:
        self.inputs, self.targets, self.lost = inputs, targets, lost

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if index == self.lost:
            raise OSError("disk gone")
        return self.inputs[index], self.targets[index]


def put(tensor: Tensor, row: int, value: float) -> Tensor:
    changed = tensor.clone()
    changed[row].fill_(value)
    return changed


def read(source: Any, **options: Any) -> list[tuple[Tensor, Tensor]]:
    return list(Labelled(LoaderSplit(source), "validation", classes=4).batches(8, **options))


@pytest.mark.parametrize("dtype", [torch.int32, torch.int8, torch.uint8, torch.uint16, torch.int64])
def test_class_numbers_of_any_integer_type_are_the_same_examples(dtype: torch.dtype) -> None:
    batches = read(TensorDataset(X, Y.to(dtype)))
    assert torch.equal(torch.cat([targets for _, targets in batches]), Y)
    assert batches[0][1].dtype == torch.int64
    truths = Labelled(LoaderSplit(TensorDataset(X, Y > 1)), "train", classes=2)
    assert torch.equal(torch.cat([targets for _, targets in truths.batches(8)]), (Y > 1).long())


WRONG: dict[str, tuple[Tensor, Tensor, str]] = {
    "a column": (X, Y[:, None], r"targets of shape \(8, 1\) .*squeeze the targets"),
    "one hot": (X, torch.nn.functional.one_hot(Y), r"targets of shape \(8, 4\) .*score_func"),
    "pictures": (X, torch.zeros(40, 4, 4).long(), r"targets of shape \(8, 4, 4\)"),
    "whole floats": (X, Y.double(), r"type torch.float64 .*targets.long\(\)"),
    "fractions": (X, Y + 0.5, r"type torch.float32 \(the first is 0.5\)"),
    "complex": (X, Y.to(torch.complex64), "type torch.complex64"),
    "below": (X, put(Y, 21, -1), r"row 5: class number -1; allowed are 0 to 3 for 4 classes"),
    "ignored": (X, put(Y, 21, -100), r"class number -100"),
    "above": (X, put(Y, 21, 4), r"batch 2 as read, row 5: class number 4"),
    "nan": (put(X, 21, torch.nan), Y, r"batch 2 as read, row 5: .*NaN"),
    "infinite": (put(X, 21, -torch.inf), Y, r"row 5: .*infinite"),
}


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("kind", [TensorDataset, Lazy])
def test_anything_else_is_an_error_that_says_where_it_lies(case: str, kind: Any) -> None:
    inputs, targets, message = WRONG[case]
    with pytest.raises(DataError, match=f"^validation, .*{message}"):
        read(kind(inputs, targets))


@pytest.mark.parametrize("case", ["below", "above", "nan", "infinite"])
@pytest.mark.parametrize("form", [lambda d: d, DataLoader, lambda d: DataLoader(d, 7, shuffle=True)])
def test_what_lies_in_memory_is_checked_whole_and_rows_bear_the_owners_numbers(case: str, form: Any) -> None:
    inputs, targets, _ = WRONG[case]
    split = Labelled(LoaderSplit(form(TensorDataset(inputs, targets))), "test", classes=4)
    with pytest.raises(DataError, match=r"^test, row 21: "):
        split.check_stored()


def test_rows_that_are_not_read_as_they_lie_are_not_judged() -> None:
    data, rest = TensorDataset(put(X, 21, torch.nan), put(Y, 22, 9)), [i for i in range(40) if i not in (21, 22)]

    class Mended(TensorDataset):
        def __getitem__(self, index: int) -> tuple[Tensor, ...]:
            return X[index], Y[index]

    def flat(batch: Any) -> Any:
        return [X[: len(batch)], default_collate(batch)[1] % 4]

    forms = [
        Subset(data, rest),
        Subset(Subset(data, rest), range(30)),
        DataLoader(data, sampler=SubsetRandomSampler(rest)),
        DataLoader(data, 8, collate_fn=flat),
        Mended(*data.tensors),
        Lazy(*data.tensors),
    ]
    for form in forms:
        Labelled(LoaderSplit(form), "train", classes=4).check_stored()
    with pytest.raises(DataError, match="row 22"):
        Labelled(LoaderSplit(Subset(data, [0, 22, 5])), "train", classes=4).check_stored()
    several = Subset(TensorDataset(X, Y + 9), [30, 7, 12])
    with pytest.raises(DataError, match="row 7"):
        Labelled(LoaderSplit(several), "train", classes=4).check_stored()


def test_pictures_in_memory_are_checked_by_their_labels() -> None:
    pictures, how = torch.zeros(5, 1, 4, 4, dtype=torch.uint8), Augmentation(pad=0, flip=False)
    split = TensorSplit(pictures, torch.tensor([0, 1, 2, 7, 1]), mean=(0.0,), std=(1.0,), augmentation=how)
    with pytest.raises(DataError, match="row 3: class number 7"):
        Labelled(split, "train", classes=3).check_stored()
    for mean, std in ((0.0, 0.0), (torch.nan, 1.0), (0.0, torch.inf)):
        with pytest.raises(DataError, match="std above 0"):
            TensorSplit(pictures, torch.zeros(5).long(), mean=(mean,), std=(std,), augmentation=how)


def test_an_example_that_cannot_be_read_is_named() -> None:
    with pytest.raises(DataError, match="validation: batch 2 cannot be read: OSError: disk gone"):
        read(Lazy(X, Y, lost=21))
    with pytest.raises(DataError, match="train: examples cannot be read: OSError"):
        _ = Labelled(LoaderSplit(Lazy(X, Y, lost=21)), "train").fingerprint


def test_a_loader_must_give_batches() -> None:
    with pytest.raises(DataError, match=r"no batch at all.*drop_last"):
        read(DataLoader(TensorDataset(X, Y), 64, drop_last=True))
    with pytest.raises(DataError, match="give the loader a batch size"):
        read(DataLoader(TensorDataset(X, Y), batch_size=None))


def test_large_numbers_whose_sum_is_none_are_finite() -> None:
    read(TensorDataset(torch.full((8, 1, 4, 4), 3e38), Y[:8]))
    check_inputs(torch.full((8,), 3e38), "data")
    with pytest.raises(DataError, match=r"data, batch 3, holds NaN"):
        check_inputs(torch.tensor([1.0, torch.nan]), "data, batch 3,")


def test_checking_changes_nothing_of_what_is_read() -> None:
    plain = LoaderSplit(TensorDataset(X, Y))
    checked = Labelled(plain, "train", classes=4)
    assert checked.fingerprint == plain.fingerprint
    assert len(checked) == len(plain)
    for ours, theirs in zip(checked.batches(8, seed=3), plain.batches(8, seed=3), strict=True):
        assert all(map(torch.equal, ours, theirs))
