"""A split without examples is one clear error that names the split, before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import Convolutions, pictures
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Sampler, Subset, SubsetRandomSampler, TensorDataset

import autoprune
from autoprune.data import splits_from
from autoprune.data.unlabelled import unlabelled_splits
from autoprune.errors import DataError

SOME = pictures(8, 0)


class Nothing(Sampler[Any]):
    """Says that it has some, and has none."""

    def __len__(self) -> int:
        return 4

    def __iter__(self) -> Iterator[Any]:
        return iter(())


class Hollow(Dataset[Any]):
    def __len__(self) -> int:
        return 0

    def __getitem__(self, index: int) -> Any:
        raise IndexError(index)


def no_rows() -> TensorDataset:
    return TensorDataset(torch.zeros(0, 1, 8, 8), torch.zeros(0).long())


EMPTY: dict[str, Callable[[], Any]] = {
    "a list": lambda: [],
    "a tuple": lambda: (),
    "a size": lambda: 0,
    "a share": lambda: 0.0,
    "a text": lambda: "",
    "a mapping": lambda: {},
    "an array": lambda: np.zeros((0, 1, 8, 8)),
    "a tensor": lambda: torch.zeros(0, 1, 8, 8),
    "a range": lambda: range(0),
    "a data set of tensors": no_rows,
    "a data set": Hollow,
    "a part": lambda: Subset(SOME, []),
    "several": lambda: ConcatDataset([no_rows(), no_rows()]),
    "a loader": lambda: DataLoader(no_rows(), 4),
    "a loader of a part": lambda: DataLoader(SOME, 4, sampler=SubsetRandomSampler([])),
}

NO_BATCH: dict[str, Callable[[], Any]] = {
    "less than one batch": lambda: DataLoader(SOME, 16, drop_last=True),
    "a sampler that gives nothing": lambda: DataLoader(SOME, 4, sampler=Nothing()),
    "batches that are none": lambda: DataLoader(SOME, batch_sampler=Nothing()),
}


@pytest.mark.parametrize("role", ["train", "validation", "test"])
@pytest.mark.parametrize("case", EMPTY)
@pytest.mark.parametrize("read", [splits_from, unlabelled_splits])
def test_an_empty_split_is_named(read: Callable[..., Any], case: str, role: str) -> None:
    with pytest.raises(DataError, match=rf"^{role}\b.*empty.*give at least one example$"):
        read({"train": SOME, "validation": SOME, "test": SOME, role: EMPTY[case]()})


@pytest.mark.parametrize("role", ["train", "validation", "test"])
@pytest.mark.parametrize("case", [*EMPTY, *NO_BATCH])
def test_nothing_is_written_for_an_empty_split(case: str, role: str, tmp_path: Path) -> None:
    data = {"train": SOME, "validation": SOME, "test": SOME, role: (EMPTY | NO_BATCH)[case]()}
    with pytest.raises(DataError, match=role):
        autoprune.search(
            Convolutions(classes=4),
            torch.zeros(1, 1, 8, 8),
            data=data,
            constraints={"flops": "50%"},
            run_dir=tmp_path / "run",
            progress="silent",
        )
    assert not any(tmp_path.iterdir())


def test_batches_without_examples_are_told(tmp_path: Path) -> None:
    hollow = DataLoader(SOME, 4, collate_fn=lambda rows: (torch.zeros(0, 1, 8, 8), torch.zeros(0).long()))
    with pytest.raises(DataError, match="validation, batch 0 as read: no examples; correct the data set, or the coll"):
        autoprune.search(
            Convolutions(classes=4),
            torch.zeros(1, 1, 8, 8),
            data={"train": SOME, "validation": hollow},
            constraints={"flops": "50%"},
            run_dir=tmp_path / "run",
            progress="silent",
        )
    assert not any(tmp_path.iterdir())


def test_a_split_that_is_none_is_named() -> None:
    with pytest.raises(DataError, match=r"^validation is None: give a data set or a loader; only 'test' may"):
        splits_from({"train": SOME, "validation": None})


@pytest.mark.parametrize("folder", ["train", "train/zero", "validation", "validation/zero", "test/zero"])
def test_a_folder_without_pictures_is_named(folder: str, tmp_path: Path) -> None:
    from PIL import Image

    from autoprune.data.image_folder import load

    for role in ("train", "validation", "test"):
        for name in ("zero", "one"):
            (tmp_path / role / name).mkdir(parents=True)
            for number in range(2):
                Image.new("RGB", (8, 8)).save(tmp_path / role / name / f"{number}.png")
    for picture in (tmp_path / folder).glob("**/*.png"):
        picture.unlink()
    with pytest.raises(DataError, match=f"no picture in {tmp_path}/{folder.partition('/')[0]}/"):
        load(path=tmp_path)
