"""Fashion-MNIST (Xiao et al. 2017, arXiv 1708.07747): 60,000 + 10,000 grey images of 28 x 28 in 10 classes."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoprune.data.arrays import Examples, image_splits
from autoprune.data.base import Augmentation, DataSplits
from autoprune.data.files import has_originals, read_original
from autoprune.errors import DataError

_FOLDER = "FashionMNIST/raw"
_IMAGES, _LABELS = "{part}-images-idx3-ubyte", "{part}-labels-idx1-ubyte"
_TRAIN, _TEST = "train", "t10k"
_VALIDATION = 6_000
_UNSIGNED_BYTE = 8  # type code of the IDX format


def load(
    *,
    path: Path | None = None,
    train_limit: int | None = None,
    validation_limit: int | None = None,
    test_limit: int | None = None,
) -> DataSplits:
    """Fashion-MNIST: 54,000 to train on, 6,000 of the original training images for validation, 10,000 for test.

    Args:
        path: `FashionMNIST/raw` or a folder above it; None: the variable AUTOPRUNE_DATA. Packed (.gz) or not.
        train_limit: only so many training images, stratified.
        validation_limit: only so many validation images, stratified.
        test_limit: only so many test images, stratified.

    Raises:
        DataError: a file is missing or is not in the IDX format.
        ConfigError: a limit is below 1.
    """
    train, validation = _read(path, _TRAIN).hold_out(_VALIDATION)
    return image_splits(
        "fashion_mnist",
        train=train.first(train_limit),
        validation=validation.first(validation_limit),
        test=_read(path, _TEST).stratified().first(test_limit),
        classes=10,
        augmentation=Augmentation(pad=3, flip=True),
    )


def available(path: Path | None) -> bool:
    """Whether all files are there."""
    files = [file.format(part=part) for part in (_TRAIN, _TEST) for file in (_IMAGES, _LABELS)]
    return has_originals(path, folder=_FOLDER, files=files)


def _read(path: Path | None, part: str) -> Examples:
    images = _read_idx(path, _IMAGES.format(part=part), dimensions=3)
    labels = _read_idx(path, _LABELS.format(part=part), dimensions=1)
    return Examples(images[:, None], labels.astype(np.int64))


def _read_idx(path: Path | None, file: str, *, dimensions: int) -> NDArray[Any]:
    raw = read_original("fashion_mnist", path, folder=_FOLDER, file=file)
    header = 4 * (1 + dimensions)
    if raw[:4] == bytes((0, 0, _UNSIGNED_BYTE, dimensions)) and len(raw) >= header:
        shape = struct.unpack(f">{dimensions}I", raw[4:header])
        if len(raw) == header + np.prod(shape):
            return np.frombuffer(raw, np.uint8, offset=header).reshape(shape)
    raise DataError(f"fashion_mnist: {file} is not an IDX file of {dimensions} dimension(s); fetch the original again")
