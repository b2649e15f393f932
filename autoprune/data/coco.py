"""Pictures with boxes, as COCO's files have them: `train.json` beside `train/*`, and likewise for the other parts."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, final

import torch
from torch import Tensor
from torch.utils.data import Dataset

from autoprune.data.parts import check_size, parts_of
from autoprune.data.pictures import read_picture
from autoprune.errors import DataError, blame

_WHAT = "coco"


@final
class BoxedPictures(Dataset[Any]):
    """Pictures (3, H, W) from 0 to 1, read from disk as they are asked for, and what is in each of them.

    Args:
        files: of the pictures.
        targets: `boxes` (T, 4) corners in pixels, `labels` (T,) and `iscrowd` (T,) for each.
        size: height and width that pictures and boxes are brought to; None: as they are.
    """

    def __init__(self, files: list[Path], targets: list[dict[str, Tensor]], size: int | None) -> None:
        self._files, self._targets, self._size = files, targets, size

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, number: int) -> tuple[Tensor, dict[str, Tensor]]:
        target, file = self._targets[number], self._files[number]
        picture = torch.from_numpy(read_picture(file, what=_WHAT)).float() / 255
        if self._size is None:
            return picture, target
        high, wide = picture.shape[1:]
        small = torch.nn.functional.interpolate(
            picture[None], (self._size, self._size), mode="bilinear", antialias=True
        )[0]
        scale = torch.tensor([self._size / wide, self._size / high] * 2)
        return small.clamp(0, 1), {**target, "boxes": target["boxes"] * scale}


def load(*, path: Path, size: int | None = None) -> dict[str, Dataset[Any]]:
    """Read the lists of boxes; pictures are read as they are needed.

    Classes are numbered from 1 in the order of the ids of `categories` in `train.json`, 0 is for the background, as
    torchvision's detectors have it.

    Args:
        path: the folder with `train.json`, and the pictures that it names in `train`.
        size: height and width in pixels that pictures are brought to; None: as they are, of different sizes.

    Raises:
        DataError: no `train.json`, one that is not as COCO has it, or a picture that is not there.
        ConfigError: a size below 1.
    """
    check_size(size, _WHAT)
    numbers: dict[Any, int] = {}

    def of(file: Path, role: str) -> Dataset[Any]:
        listed = _listed(file)
        if role == "train":
            ids = sorted(one["id"] for one in listed["categories"])
            numbers.update({category: number for number, category in enumerate(ids, 1)})
        return _part(file, listed, numbers, size)

    return parts_of(path, of, what=_WHAT, endings=(".json",))


def _listed(file: Path) -> dict[str, Any]:
    with blame(DataError, f"{_WHAT}: {file} cannot be read", then="Write it again as COCO's files are."):
        found = json.loads(file.read_bytes())
        keys = ("images", "annotations", "categories")
        if not isinstance(found, dict) or not all(isinstance(found.get(key), list) for key in keys):
            raise DataError(f"{_WHAT}: {file} must be an object with the lists {', '.join(keys)}")
        return found


def _part(file: Path, listed: Mapping[str, Any], numbers: Mapping[Any, int], size: int | None) -> BoxedPictures:
    folder = file.with_suffix("")
    if not listed["images"]:
        raise DataError(f"{_WHAT}: {file} names no images; give at least one")
    with blame(DataError, f"{_WHAT}: {file} is not as COCO's files are", then="Correct it."):
        files = {one["id"]: _inside(folder, one["file_name"], file) for one in listed["images"]}
        boxes: dict[Any, list[Any]] = {image: [] for image in files}
        for number, one in enumerate(listed["annotations"]):
            if one["image_id"] not in boxes:
                raise DataError(
                    f"{_WHAT}: {file}, annotation {number}: image_id {one['image_id']!r} is none of images; correct it"
                )
            boxes[one["image_id"]].append(_box(one, numbers, f"{_WHAT}: {file}, annotation {number}"))
    return BoxedPictures(list(files.values()), [_target(found) for found in boxes.values()], size)


def _inside(folder: Path, name: str, listed: Path) -> Path:
    """The file of a picture; raises DataError where it is not there, or elsewhere."""
    plain = PurePosixPath(name)
    if plain.is_absolute() or ".." in plain.parts:
        raise DataError(f"{_WHAT}: {listed} names {name!r}, which is not below {folder}; give names relative to that")
    found = folder / plain
    if not found.is_file():
        raise DataError(f"{_WHAT}: {listed} names {name!r}, which is not in {folder}; put it there")
    return found


def _box(one: Mapping[str, Any], numbers: Mapping[Any, int], where: str) -> tuple[list[float], int, int]:
    left, top, wide, high = map(float, one["bbox"])
    if not all(map(math.isfinite, (left, top, wide, high))) or wide <= 0 or high <= 0:
        raise DataError(f"{where}: bbox {one['bbox']} is none; it is left, top, width, height in pixels, both above 0")
    if one["category_id"] not in numbers:
        raise DataError(f"{where}: category_id {one['category_id']!r} is none of train's; they are {[*numbers]}")
    return [left, top, left + wide, top + high], numbers[one["category_id"]], int(one.get("iscrowd", 0))


def _target(found: list[tuple[list[float], int, int]]) -> dict[str, Tensor]:
    boxes = torch.tensor([box for box, _, _ in found], dtype=torch.float32).reshape(-1, 4)
    labels, crowds = ([one[i] for one in found] for i in (1, 2))
    return {"boxes": boxes, "labels": torch.tensor(labels).long(), "iscrowd": torch.tensor(crowds).long()}
