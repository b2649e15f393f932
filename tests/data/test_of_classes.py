"""Splits of some classes: which examples, in which batches, under which numbers."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import TensorDataset

from autoprune.data.base import LoaderSplit
from autoprune.data.of_classes import OfClasses
from autoprune.errors import ConfigError, DataError

X = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
Y = torch.arange(60) * 7 % 6
SPLIT = LoaderSplit(TensorDataset(X, Y), "train")


def test_its_examples_are_those_of_its_classes_numbered_anew() -> None:
    split = OfClasses(SPLIT, [4, 5, 1], "train")
    inputs, targets = (torch.cat(rows) for rows in zip(*split.batches(7), strict=True))
    chosen = (Y == 4) | (Y == 5) | (Y == 1)
    assert torch.equal(inputs, X[chosen])
    assert targets.tolist() == [[4, 5, 1].index(int(one)) for one in Y[chosen]]
    assert len(split) == 30


@pytest.mark.parametrize("batch_size", [1, 7, 15, 30, 64])
def test_batches_are_full_and_each_example_is_read_once(batch_size: int) -> None:
    split = OfClasses(SPLIT, [0, 2, 3], "train")
    for seed in (None, 3):
        read = list(split.batches(batch_size, seed=seed))
        full, rest = divmod(30, batch_size)
        assert [len(targets) for _, targets in read] == [batch_size] * full + [rest] * (rest > 0)
        values = torch.cat([inputs for inputs, _ in read])[:, 0].sort().values
        assert torch.equal(values, X[(Y % 2 == 0) & (Y != 4) | (Y == 3)][:, 0].sort().values)
    assert [len(targets) for _, targets in split.batches(batch_size, limit=9)] == (
        [batch_size] * (9 // batch_size) + [9 % batch_size] * (9 % batch_size > 0)
    )
    orders = [torch.cat([inputs for inputs, _ in split.batches(batch_size, seed=seed)]) for seed in (3, 3, 4)]
    assert torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])


def test_classes_without_examples_are_refused() -> None:
    with pytest.raises(DataError, match="validation has no example of the classes 6 to 9"):
        len(OfClasses(SPLIT, [6, 7, 8, 9], "validation"))
    with pytest.raises(ConfigError, match="limit must be at least 1"):
        next(OfClasses(SPLIT, [1, 2], "train").batches(4, limit=0))


def test_a_fingerprint_is_of_the_examples_and_of_the_classes() -> None:
    prints = {OfClasses(SPLIT, classes, "train").fingerprint for classes in ([0, 1], [1, 0], [2, 3])}
    assert len(prints | {SPLIT.fingerprint}) == 4
