"""A folder of pictures: `train/<class>/*.png`, optionally `validation` (or `val`) and `test` of the same shape."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from autoprune.data.arrays import Examples, image_splits
from autoprune.data.base import Augmentation, DataSplits
from autoprune.data.parts import check_size, place_of
from autoprune.data.pictures import ENDINGS, pictures_in, read_picture
from autoprune.errors import DataError

_HELD_OUT = 0.1  # of train, where there is no validation folder


def load(*, path: Path, size: int = 32, flip: bool = True) -> DataSplits:
    """Read all pictures into memory as RGB, resized to `size` x `size`.

    Args:
        path: the folder with `train` in it; the classes are the folders in `train`, in alphabetical order.
        size: height and width in pixels.
        flip: whether training may mirror a picture.

    Raises:
        DataError: no `train`, no classes, an empty class, a class that train does not have, an unreadable file, or see
            `place_of`.
        ConfigError: a size below 1.
    """
    check_size(size or 0, "image_folder")
    folder = path / "train"
    classes = sorted(child.name for child in folder.iterdir() if child.is_dir()) if folder.is_dir() else []
    if not classes:
        raise DataError(f"image_folder: {folder} must be a folder with one folder per class; set path to its parent")
    train = _read(folder, classes, size=size)
    given, last = (place_of(path, role, what="image_folder") for role in ("validation", "test"))
    if given is None:
        train, validation = train.hold_out(max(1, round(_HELD_OUT * len(train))))
    else:
        validation = _read(given, classes, size=size)
    test = None if last is None else _read(last, classes, size=size)
    return image_splits(
        path.name,
        train=train,
        validation=validation,
        test=test,
        classes=len(classes),
        augmentation=Augmentation(pad=size // 8, flip=flip),
    )


def _read(folder: Path, classes: list[str], *, size: int) -> Examples:
    unknown = sorted({child.name for child in folder.iterdir() if child.is_dir()} - set(classes))
    if unknown:
        raise DataError(f"image_folder: {folder} has the classes {unknown}, which train has not; it has {classes}")
    files, labels = [], []
    for label, name in enumerate(classes):
        own = list(pictures_in(folder / name))
        if not own:
            raise DataError(f"image_folder: no picture in {folder / name}; known endings are {sorted(ENDINGS)}")
        files += own
        labels += [label] * len(own)
    images = np.stack([read_picture(file, what="image_folder", size=size) for file in files])
    return Examples(images, np.array(labels, dtype=np.int64)).stratified()
