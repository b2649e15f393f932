"""Targets of detection in the forms that data sets have."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from autoprune.data.boxes import boxes_of
from autoprune.errors import DataError
from autoprune.tasks.detection import collate_images


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_boxes_of_a_list_may_be_lists_arrays_or_tensors_and_crowds_are_told_apart(kind: Any) -> None:
    annotations = [
        {"bbox": kind([1, 2, 3, 4]), "category_id": 7, "iscrowd": 1},
        {"bbox": kind([0, 0, 5, 5]), "category_id": 2},
    ]
    found = boxes_of(annotations)
    assert found["boxes"].tolist() == [[1, 2, 4, 6], [0, 0, 5, 5]]
    assert (found["labels"].tolist(), found["iscrowd"].tolist()) == ([7, 2], [1, 0])


@pytest.mark.parametrize("label", [1.5, -1])
def test_labels_that_are_no_class_numbers_are_one_clear_error(label: float) -> None:
    with pytest.raises(DataError, match="whole numbers from 0 on"):
        boxes_of({"boxes": [[1, 1, 2, 2]], "labels": [label]})


def test_crowds_are_told_of_each_box_or_of_none() -> None:
    target = {"boxes": [[1, 1, 2, 2], [0, 0, 5, 5]], "labels": [1, 2]}
    with pytest.raises(DataError, match="a target has 2 boxes and 1 entries of iscrowd; give one for each box"):
        boxes_of({**target, "iscrowd": 1})
    assert boxes_of({**target, "iscrowd": [0, 1]})["iscrowd"].tolist() == [0, 1]


def test_of_several_columns_the_image_is_the_one_of_that_name() -> None:
    objects = {"bbox": [[1, 1, 2, 2]], "category": [0]}
    rows = [{"image_id": i, "image": torch.full((3, 4, 4), float(i)), "width": 4, "objects": objects} for i in range(2)]
    batch = collate_images(rows)
    assert batch.inputs.shape == (2, 3, 4, 4)
    assert batch.inputs[:, 0, 0, 0].tolist() == [0, 1]
    assert batch.targets[0]["boxes"].tolist() == [[1, 1, 3, 3]]
