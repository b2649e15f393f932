"""A folder of pictures: `train/<class>/*.png`, optionally `validation` (or `val`) and `test` of the same shape."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from autoprune.data.arrays import Examples, Images, image_splits
from autoprune.data.base import Augmentation, DataSplits
from autoprune.errors import ConfigError, DataError, blame

_ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp"})
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP")  # whatever the file is called: others have been ways to run programs
_MOST_PIXELS = 2**27
_HELD_OUT = 0.1  # of train, where there is no validation folder


def load(*, path: Path, size: int = 32, flip: bool = True) -> DataSplits:
    """Read all pictures into memory as RGB, resized to `size` x `size`.

    Args:
        path: the folder with `train` in it; the classes are the folders in `train`, in alphabetical order.
        size: height and width in pixels.
        flip: whether training may mirror a picture.

    Raises:
        DataError: no `train`, no classes, an empty class, a class that train does not have, or an unreadable file.
        ConfigError: a size below 1.
    """
    if size < 1:
        raise ConfigError(f"image_folder: size must be at least 1 pixel, got {size}")
    folder = path / "train"
    classes = sorted(child.name for child in folder.iterdir() if child.is_dir()) if folder.is_dir() else []
    if not classes:
        raise DataError(f"image_folder: {folder} must be a folder with one folder per class; set path to its parent")
    train = _read(folder, classes, size=size)
    given = next((path / name for name in ("validation", "val") if (path / name).is_dir()), None)
    if given is None:
        train, validation = train.hold_out(max(1, round(_HELD_OUT * len(train))))
    else:
        validation = _read(given, classes, size=size)
    test = _read(path / "test", classes, size=size) if (path / "test").is_dir() else None
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
        own = sorted(file for file in (folder / name).glob("**/*") if file.suffix.lower() in _ENDINGS)
        if not own:
            raise DataError(f"image_folder: no picture in {folder / name}; known endings are {sorted(_ENDINGS)}")
        files += own
        labels += [label] * len(own)
    images = np.stack([_decode(file, size) for file in files])
    return Examples(images, np.array(labels, dtype=np.int64)).stratified()


def _decode(file: Path, size: int) -> Images:
    if not file.is_file():
        raise DataError(f"image_folder: {file} is no plain file; remove it")
    failing = blame(DataError, f"image_folder: {file} cannot be read as a picture", then="Repair or remove it.")
    with failing, file.open("rb") as content, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit is below
        picture = Image.open(content, formats=_FORMATS)
        width, height = picture.size
        if width * height > _MOST_PIXELS:
            raise DataError(
                f"image_folder: {file} has {width:,} x {height:,} pixels, at most {_MOST_PIXELS:,} are read; make "
                f"it smaller or remove it"
            )
        resized = picture.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(resized, dtype=np.uint8).transpose(2, 0, 1)
