"""Pictures with masks: `train/images/*` and `train/masks/*.png`, maybe `validation` (or `val`) and `test` likewise."""

from __future__ import annotations

from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor
from torch.utils.data import Dataset

from autoprune.data.parts import check_size, parts_of
from autoprune.data.pictures import Pixels, pictures_in, read_picture, shape_of
from autoprune.errors import DataError

_WHAT = "image_masks"


@final
class MaskedPictures(Dataset[Any]):
    """Pictures and masks in memory, as (3, H, W) normalised numbers and (H, W) class numbers.

    Args:
        pictures: (3, H, W) bytes each.
        masks: (H, W) numbers each.
        mean: per channel, of values scaled to 0..1.
        std: per channel, of values scaled to 0..1; above 0.
    """

    def __init__(self, pictures: list[Pixels], masks: list[Pixels], mean: Tensor, std: Tensor) -> None:
        self._pictures, self._masks, self._mean, self._std = pictures, masks, mean, std

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        picture = torch.from_numpy(self._pictures[number]).float() / 255
        return (picture - self._mean) / self._std, torch.from_numpy(self._masks[number])


def load(*, path: Path, size: int | None = None) -> dict[str, Dataset[Any]]:
    """Read all pictures and masks into memory; a mask is called as its picture, and its numbers are classes.

    Pictures are normalised by the mean and the standard deviation of the channels in `train`.

    Args:
        path: the folder with `train` in it.
        size: height and width in pixels that all are brought to; None: they are all of one size.

    Raises:
        DataError: no `train`, no pictures, a picture without a mask, one of another size, or an unreadable file.
        ConfigError: a size below 1.
    """
    check_size(size, _WHAT)
    read: dict[str, tuple[list[Pixels], list[Pixels]]] = {}
    statistics: list[Tensor] = []

    def of(folder: Path, role: str) -> Dataset[Any]:
        read[role] = _read(folder, size)
        if role == "train":
            statistics.extend(_statistics(read[role][0]))
        return MaskedPictures(*read[role], *statistics)

    return parts_of(path, of, what=_WHAT)


def _read(folder: Path, size: int | None) -> tuple[list[Pixels], list[Pixels]]:
    files, masks = list(pictures_in(folder / "images")), folder / "masks"
    if not files:
        raise DataError(f"{_WHAT}: no picture in {folder / 'images'}; put pictures there, and their masks into {masks}")
    by_name: dict[Path, Path] = {}
    for mask in pictures_in(masks):
        other = by_name.setdefault(mask.relative_to(masks).with_suffix(""), mask)
        if other != mask:
            raise DataError(f"{_WHAT}: {other} and {mask} are masks of one picture; leave one of them there")
    pairs: tuple[list[Pixels], list[Pixels]] = ([], [])
    for file in files:
        own = by_name.get(file.relative_to(folder / "images").with_suffix(""))
        if own is None:
            raise DataError(f"{_WHAT}: {file} has no mask; put one of the same name into {masks}")
        picture = read_picture(file, what=_WHAT, size=size)
        numbers = read_picture(own, what=_WHAT, mode="mask", size=size)
        sizes = [shape_of(one, what=_WHAT) for one in (own, file)]  # as they are; `size` would hide what differs
        if sizes[0] != sizes[1]:
            raise DataError(f"{_WHAT}: {own} is {sizes[0]}, its picture {sizes[1]}; make them alike")
        if pairs[0] and picture.shape != pairs[0][0].shape:
            raise DataError(
                f"{_WHAT}: {file} is {picture.shape[1:]}, the first one {pairs[0][0].shape[1:]}; set the argument size"
            )
        pairs[0].append(picture)
        pairs[1].append(numbers)
    return pairs


def _statistics(pictures: list[Pixels]) -> tuple[Tensor, Tensor]:
    """(3, 1, 1) mean and standard deviation of the channels, of values from 0 to 1."""
    sums, squares, count = torch.zeros(3).double(), torch.zeros(3).double(), 0
    for picture in pictures:
        values = torch.from_numpy(picture).double().flatten(1) / 255
        sums, squares, count = sums + values.sum(1), squares + values.square().sum(1), count + values.shape[1]
    mean = sums / count
    std = (squares / count - mean.square()).clamp(min=0).sqrt().clamp(min=1 / 255)
    return mean.float()[:, None, None], std.float()[:, None, None]
