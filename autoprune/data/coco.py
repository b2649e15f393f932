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

from autoprune.config.json_reader import no_key_twice
from autoprune.data.parts import check_size, parts_of
from autoprune.data.pictures import read_picture
from autoprune.errors import DataError, blame, shortened

_WHAT = "coco"
_FARTHEST = 1e7
"""Pixels; no picture is as large."""


@final
class BoxedPictures(Dataset[Any]):
    """Pictures (3, H, W) from 0 to 1, read from disk as they are asked for, and what is in each of them.

    Args:
        files: of the pictures.
        targets: `boxes` (T, 4) corners in pixels, `labels` (T,) and `iscrowd` (T,) for each.
        size: height and width that pictures and boxes are brought to; None: as they are.
        shapes: height and width of each picture, as far as they are known; infinite where they are not.
    """

    def __init__(
        self,
        files: list[Path],
        targets: list[dict[str, Tensor]],
        size: int | None,
        shapes: list[tuple[float, float]],
    ) -> None:
        self._files, self._targets, self._size, self._shapes = files, targets, size, shapes

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, number: int) -> tuple[Tensor, dict[str, Tensor]]:
        target, file = self._targets[number], self._files[number]
        picture = torch.from_numpy(read_picture(file, what=_WHAT)).float() / 255
        listed, read = self._shapes[number], tuple(map(float, picture.shape[1:]))
        if any(math.isfinite(said) and said != found for said, found in zip(listed, read, strict=True)):
            raise DataError(
                f"{_WHAT}: {file} has {read[1]:g} x {read[0]:g} pixels, its list says {listed[1]:g} x {listed[0]:g}, "
                f"so boxes may stand elsewhere; correct one of them"
            )
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
        DataError: no `train.json`, one that is not as COCO has it or contradicts itself or its pictures, or a picture
            that is not there.
        ConfigError: a size below 1.
    """
    check_size(size, _WHAT)
    numbers: dict[Any, int] = {}
    names: dict[Any, object] = {}

    def of(file: Path, role: str) -> Dataset[Any]:
        listed = _listed(file)
        own = _names(file, listed)
        if role == "train":
            numbers.update({category: number for number, category in enumerate(sorted(own), 1)})
            names.update(own)
        for category, name in own.items():
            if names.get(category, name) != name:
                raise DataError(
                    f"{_WHAT}: category {category!r} is {name!r} in {file} and {names[category]!r} in train.json; give "
                    f"both one list of categories"
                )
        return _part(file, listed, numbers, size)

    return parts_of(path, of, what=_WHAT, endings=(".json",))


def _listed(file: Path) -> dict[str, Any]:
    with blame(DataError, f"{_WHAT}: {file} cannot be read", then="Write it again as COCO's files are."):
        with file.open("rb") as content:
            if content.read(4096).lstrip()[:1] not in (b"{", b"["):  # a long file is not read for nothing
                raise DataError(f"{_WHAT}: {file} cannot be read: it is no JSON; write it again as COCO's files are")
        found = json.loads(file.read_bytes(), object_pairs_hook=no_key_twice)
        keys = ("images", "annotations", "categories")
        if not isinstance(found, dict) or not all(isinstance(found.get(key), list) for key in keys):
            raise DataError(f"{_WHAT}: {file} must be an object with the lists {', '.join(keys)}")
        return found


def _names(file: Path, listed: Mapping[str, Any]) -> dict[Any, object]:
    """Id of a category -> its name; raises DataError where an id stands twice, or is no whole number."""
    found: dict[Any, object] = {}
    for number, one in enumerate(listed["categories"]):
        own = one.get("id") if isinstance(one, dict) else None
        if not isinstance(own, int) or isinstance(own, bool) or own in found:
            problem = "stands twice" if isinstance(own, int) else "is no whole number"
            raise DataError(f"{_WHAT}: {file}, category {number}: id {own!r} {problem}; correct it")
        found[own] = one.get("name")
    return found


def _part(file: Path, listed: Mapping[str, Any], numbers: Mapping[Any, int], size: int | None) -> BoxedPictures:
    folder = file.with_suffix("")
    if not listed["images"]:
        raise DataError(f"{_WHAT}: {file} names no images; give at least one")
    with blame(DataError, f"{_WHAT}: {file} is not as COCO's files are", then="Correct it."):
        images: dict[Any, Mapping[str, Any]] = {}
        for one in listed["images"]:
            if images.setdefault(one["id"], one) is not one:
                raise DataError(f"{_WHAT}: {file} has several images of the id {one['id']!r}; give each its own")
        files = [_inside(folder, one["file_name"], file) for one in images.values()]
        shapes = [_shape(one) for one in images.values()]
        boxes: dict[Any, list[Any]] = {image: [] for image in images}
        for number, one in enumerate(listed["annotations"]):
            if one["image_id"] not in boxes:
                raise DataError(
                    f"{_WHAT}: {file}, annotation {number}: image_id {one['image_id']!r} is none of images; correct it"
                )
            where = f"{_WHAT}: {file}, annotation {number}"
            boxes[one["image_id"]].append(_box(one, numbers, _shape(images[one["image_id"]]), where))
    corners = [box for found in boxes.values() for box, _, _ in found]
    if corners and max(side for box in corners for side in box[2:]) <= 1:
        raise DataError(f"{_WHAT}: {file}: all boxes lie within one pixel; give them in pixels, not as shares")
    return BoxedPictures(files, [_target(found) for found in boxes.values()], size, shapes)


def _shape(image: Mapping[str, Any]) -> tuple[float, float]:
    """Height and width that the list gives a picture; infinite where it does not say."""
    high, wide = (image.get(name) for name in ("height", "width"))
    return (math.inf if high is None else float(high), math.inf if wide is None else float(wide))


def _inside(folder: Path, name: str, listed: Path) -> Path:
    """The file of a picture; raises DataError where it is not there, or elsewhere."""
    plain = PurePosixPath(name)
    if plain.is_absolute() or ".." in plain.parts:
        raise DataError(f"{_WHAT}: {listed} names {name!r}, which is not below {folder}; give names relative to that")
    found = folder / plain
    if not found.is_file():
        raise DataError(f"{_WHAT}: {listed} names {name!r}, which is not in {folder}; put it there")
    return found


def _box(
    one: Mapping[str, Any], numbers: Mapping[Any, int], shape: tuple[float, float], where: str
) -> tuple[list[float], int, int]:
    """Corners, class and whether it is a crowd, of an annotation to a picture of this height and width."""
    given, sides = one["bbox"], []
    if isinstance(given, list) and len(given) == 4:
        sides = [side for side in given if isinstance(side, int | float) and abs(side) <= _FARTHEST]
    if len(sides) < 4 or min(sides[2:]) <= 0:
        told = shortened(repr(given), 80)
        raise DataError(f"{where}: bbox {told} is none; it is left, top, width, height in pixels, both above 0")
    left, top, wide, high = map(float, sides)
    if left >= shape[1] or top >= shape[0] or left + wide <= 0 or top + high <= 0:
        size = f"{shape[1]:g} x {shape[0]:g}"
        raise DataError(f"{where}: bbox {given} lies outside of its picture of {size} pixels; correct it")
    if one["category_id"] not in numbers:
        raise DataError(f"{where}: category_id {one['category_id']!r} is none of train's; they are {[*numbers]}")
    if one.get("iscrowd", 0) not in (0, 1):
        raise DataError(f"{where}: iscrowd is 0 or 1, got {shortened(repr(one['iscrowd']), 80)}; correct it")
    return [left, top, left + wide, top + high], numbers[one["category_id"]], int(one.get("iscrowd", 0))


def _target(found: list[tuple[list[float], int, int]]) -> dict[str, Tensor]:
    boxes = torch.tensor([box for box, _, _ in found], dtype=torch.float32).reshape(-1, 4)
    labels, crowds = ([one[i] for one in found] for i in (1, 2))
    return {"boxes": boxes, "labels": torch.tensor(labels).long(), "iscrowd": torch.tensor(crowds).long()}
