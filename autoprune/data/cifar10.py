"""CIFAR-10 (Krizhevsky 2009), the original "python version": 50,000 + 10,000 colour images of 32 x 32 in 10 classes.

The files are pickles. They are read by an unpickler that knows numpy arrays and nothing else.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any, final

import numpy as np

from autoprune.data.arrays import Examples, image_splits
from autoprune.data.base import Augmentation, DataSplits
from autoprune.data.files import has_originals, read_original
from autoprune.errors import DataError

_TRAIN_FILES = tuple(f"data_batch_{i}" for i in range(1, 6))
_TEST_FILE = "test_batch"
_FOLDER = "cifar-10-batches-py"
_VALIDATION = 5_000
_CLASSES = 10


def load(
    *,
    path: Path | None = None,
    train_limit: int | None = None,
    validation_limit: int | None = None,
    test_limit: int | None = None,
) -> DataSplits:
    """CIFAR-10: 45,000 to train on, 5,000 of the original training images for validation, 10,000 for test.

    Args:
        path: `cifar-10-batches-py` or the folder above it; None: the variable AUTOPRUNE_DATA.
        train_limit: only so many training images, stratified.
        validation_limit: only so many validation images, stratified.
        test_limit: only so many test images, stratified.

    Raises:
        DataError: a file is missing, is not a CIFAR-10 batch, or asks to run code.
        ConfigError: a limit is below 1.
    """
    batches = [_read(path, file) for file in _TRAIN_FILES]
    official = Examples(np.concatenate([b.images for b in batches]), np.concatenate([b.labels for b in batches]))
    train, validation = official.hold_out(_VALIDATION)
    return image_splits(
        "cifar10",
        train=train.first(train_limit),
        validation=validation.first(validation_limit),
        test=_read(path, _TEST_FILE).stratified().first(test_limit),
        classes=_CLASSES,
        augmentation=Augmentation(pad=4, flip=True),
    )


def available(path: Path | None) -> bool:
    """Whether all files are there."""
    return has_originals(path, folder=_FOLDER, files=(*_TRAIN_FILES, _TEST_FILE))


def _read(path: Path | None, file: str) -> Examples:
    raw = read_original("cifar10", path, folder=_FOLDER, file=file)
    try:
        content = _ArrayUnpickler(io.BytesIO(raw), encoding="bytes").load()
        images = np.asarray(content[b"data"], dtype=np.uint8).reshape(-1, 3, 32, 32)
        labels = np.asarray(content[b"labels"], dtype=np.int64)
    except (pickle.UnpicklingError, EOFError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"cifar10: {file} is not a CIFAR-10 batch ({error}); fetch the original again") from error
    if labels.shape != (len(images),) or not set(np.unique(labels)) <= set(range(_CLASSES)):
        raise DataError(f"cifar10: {file} must hold one label of 0 to 9 per image; fetch the original again")
    return Examples(images, labels)


@final
class _ArrayUnpickler(pickle.Unpickler):
    """Rebuilds plain containers and numpy arrays; any other class or function is refused before it is imported."""

    # asked of numpy itself: the function's home has moved between versions
    _RECONSTRUCT = np.empty(0).__reduce__()[0]
    _ALLOWED = {  # noqa: RUF012  (read only)
        ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
        ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """Return one of the allowed objects.

        Raises:
            DataError: the file asks for anything else.
        """
        if (module_name, global_name) not in self._ALLOWED:
            raise DataError(
                f"cifar10: a batch file asks for {module_name}.{global_name}, which no CIFAR-10 batch needs; "
                f"it was not read. Fetch the original again"
            )
        return self._ALLOWED[module_name, global_name]
