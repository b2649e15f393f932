"""Examples of any nesting become batches; so do data sets of Hugging Face's `datasets`, by what they can do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils.data import DataLoader, Dataset, TensorDataset

from autoprune.data import load_data, parts_from, splits_from
from autoprune.data.base import DataSplits
from autoprune.data.batch import Batch, Ragged, examples_in, plain_lists
from autoprune.data.boxes import boxes_of
from autoprune.data.collated import Collated, collated_splits, stacked
from autoprune.data.pairs import pair_of
from autoprune.errors import DataError

X, Y = torch.arange(60.0).reshape(20, 3), torch.arange(20.0)
NESTED = Batch(
    {"image": X, "sizes": (Ragged(torch.ones(1, i + 1) for i in range(20)), torch.tensor(3))},
    Ragged({"boxes": torch.full((i, 4), float(i))} for i in range(20)),
)


class Listed(Dataset[Any]):
    def __init__(self, rows: list[Any]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> Any:
        return self.rows[number]


class Hub:
    """What `datasets.Dataset` can do, as far as it is used: no torch data set, rows are dictionaries."""

    def __init__(self, columns: Mapping[str, list[Any]]) -> None:
        self.columns = columns
        self.column_names = [*columns]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, key: Any) -> dict[str, Any]:
        assert type(key) is int  # it takes no tensors
        return {name: values[key] for name, values in self.columns.items()}

    def set_format(self, kind: str | None = None) -> None:
        raise AssertionError("what belongs to the caller is only read")


def as_it_is(batch: Batch, where: str) -> Batch:
    return batch


def collated(source: Any, **options: Any) -> Collated:
    return Collated(source, "train", collate=stacked, check=as_it_is, **options)


def test_batches_of_any_nesting_are_cut_into_their_examples_and_moved_whole() -> None:
    assert len(NESTED) == 20
    part = NESTED.part(4, 7)
    assert len(part) == 3
    assert [one.shape for one in part.inputs["sizes"][0]] == [(1, 5), (1, 6), (1, 7)]
    assert part.inputs["sizes"][1] == 3
    assert [len(one["boxes"]) for one in part.targets] == [4, 5, 6]
    assert isinstance(part.inputs["sizes"][0], Ragged)
    assert [len(one) for one in NESTED.split(8)] == [8, 8, 4]
    moved = NESTED.to("meta")
    assert {leaf.device.type for leaf in pytree.tree_leaves((moved.inputs, moved.targets))} == {"meta"}
    assert NESTED.is_ragged
    assert not Batch(X).is_ragged
    assert examples_in({"a": "text"}) is None
    assert type(plain_lists(part.inputs)["sizes"][0]) is list


@pytest.mark.parametrize(
    "source", [TensorDataset(X, Y), Listed([{"x": x, "label": y} for x, y in zip(X, Y, strict=True)])]
)
def test_a_seed_fixes_the_order_and_without_one_it_is_as_stored(source: Any) -> None:
    split = collated(source)
    assert torch.equal(torch.cat([batch.inputs for batch in split.batches(6)]), X)
    first, again, other = (
        torch.cat([batch.targets for batch in split.batches(6, seed=seed)]).tolist() for seed in (1, 1, 2)
    )
    assert first == again != other
    assert sorted(first) == sorted(other) == Y.tolist()
    assert [len(batch) for batch in split.batches(6, limit=8)] == [6, 2]


def test_loaders_and_splits_are_read_as_they_are() -> None:
    loader = collated(DataLoader(TensorDataset(X, Y), batch_size=7))
    assert [len(batch) for batch in loader.batches(3)] == [7, 7, 6]
    assert [len(batch) for batch in loader.batches(3, limit=9)] == [7, 2]
    digits = load_data("digits")
    split = collated(digits.train)
    assert split.fingerprint == digits.train.fingerprint
    inputs, targets = next(digits.train.batches(5, seed=3))
    batch = next(split.batches(5, seed=3))
    assert torch.equal(batch.inputs, inputs)
    assert torch.equal(batch.targets, targets)


def test_the_fingerprint_changes_with_the_examples() -> None:
    same, other = collated(TensorDataset(X.clone(), Y)), collated(TensorDataset(X + 1, Y))
    assert collated(TensorDataset(X, Y)).fingerprint == same.fingerprint != other.fingerprint


def test_several_inputs_are_positional_or_by_name() -> None:
    rows = [((x, x[:1]), y) for x, y in zip(X, Y, strict=True)]
    batch = next(collated(Listed(rows)).batches(4))
    assert isinstance(batch.inputs, tuple)
    assert [one.shape for one in batch.inputs] == [(4, 3), (4, 1)]
    named = [{"a": x, "b": x[:1], "target": y} for x, y in zip(X, Y, strict=True)]
    batch = next(collated(Listed(named)).batches(4))
    assert {name: tuple(one.shape) for name, one in batch.inputs.items()} == {"a": (4, 3), "b": (4, 1)}
    assert batch.targets.tolist() == [0, 1, 2, 3]


def test_data_sets_of_hugging_face_are_taken_as_they_are() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 4, 5, 3), dtype=np.uint8)
    hub = Hub({"image": [Image.fromarray(one) for one in pixels], "label": [0, 1] * 4})
    data = splits_from({"train": hub, "validation": hub})
    inputs, targets = next(data.train.batches(8))
    np.testing.assert_allclose(inputs, pixels.transpose(0, 3, 1, 2) / 255, atol=1e-6)
    assert targets.tolist() == [0, 1] * 4
    parts, name = parts_from({"train": hub, "validation": hub, "test": None})
    assert set(parts) == {"train", "validation"}
    assert name is None
    made = collated_splits(parts, name="hub", collate=stacked, check=as_it_is)
    assert isinstance(made, DataSplits)
    assert made.input_shape == (3, 4, 5)
    assert torch.equal(next(made.train.batches(8)).inputs, inputs)


def test_pairs_say_what_is_missing() -> None:
    assert pair_of(([1.0, 2.0], np.float32(3)))[0].tolist() == [1, 2]
    grey = Image.fromarray(np.full((2, 3), 51, dtype=np.uint8))
    assert pair_of({"image": grey, "label": 1})[0].tolist() == pytest.approx(np.full((1, 2, 3), 0.2))
    for given, message in (
        ({"image": 1}, "one of target, targets, label"),
        ((1, 2, 3), "must be \\(input, target\\) or a mapping"),
        (X, "must be \\(input, target\\)"),
    ):
        with pytest.raises(DataError, match=message):
            pair_of(given)


def test_boxes_come_in_the_usual_forms() -> None:
    corners = {"boxes": [[1, 2, 4, 6]], "labels": [3]}
    for given in (
        corners,
        {"bbox": [[1, 2, 3, 4]], "category": [3]},
        [{"bbox": [1, 2, 3, 4], "category_id": 3}],
        {"boxes": torch.tensor([[1, 2, 4, 6]]), "labels": torch.tensor([3])},
    ):
        found = boxes_of(given)
        assert found["boxes"].tolist() == [[1, 2, 4, 6]]
        assert found["labels"].tolist() == [3]
    assert boxes_of([])["boxes"].shape == (0, 4)
    for wrong, message in (
        ({"boxes": [[1, 2, 4, 6]]}, "got the keys boxes"),
        ({"boxes": [[1, 2, 4, 6]], "labels": [1, 2]}, "1 boxes and 2 labels"),
        (Tensor(), "got Tensor"),
    ):
        with pytest.raises(DataError, match=message):
            boxes_of(wrong)


def gives_nan(batch: Batch, where: str) -> Batch:
    return Batch(torch.full_like(batch.inputs, torch.nan), batch.targets)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (Listed([]), "train: Listed is empty"),
        (Listed([(X[0], 1), (X[0, :2], 1)]), "train, batch 0 as read.*cannot be stacked"),
        (Listed([3, 4]), "must be \\(input, target\\)"),
        (Listed([(X[0] * torch.nan, 1)]), "batch 0 as read holds NaN"),
        (DataLoader(TensorDataset(X)), "a batch must be \\(inputs, targets\\), got list"),
        (DataLoader(TensorDataset(X, Y), batch_size=30, drop_last=True), "gives no batch at all"),
    ],
)
def test_what_is_no_example_is_one_clear_error(source: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        list(collated(source).batches(4))
