"""The 1,797 handwritten digits that come with scikit-learn (Alpaydin and Kaynak 1998), 8 x 8 enlarged to 16 x 16."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits

from autoprune.data.arrays import Examples, image_splits
from autoprune.data.base import Augmentation, DataSplits

_SIZE = 16
_BRIGHTEST = 16.0  # of the original pixels
_THIRD = 599  # few enough to train on that widths matter, enough to tell networks apart


def load() -> DataSplits:
    """Digits in three equal parts: 599 to train on, 599 for validation, 599 for test, always the same ones."""
    original = load_digits()
    small = torch.from_numpy(original.images)[:, None] * (255.0 / _BRIGHTEST)
    images = F.interpolate(small, size=(_SIZE, _SIZE), mode="bilinear").round().to(torch.uint8)
    everything = Examples(images.numpy(), original.target.astype(np.int64))
    rest, test = everything.hold_out(_THIRD)
    train, validation = rest.hold_out(_THIRD)
    return image_splits(
        "digits",
        train=train,
        validation=validation,
        test=test,
        classes=10,
        augmentation=Augmentation(pad=2, flip=False),
    )


def available(path: Path | None) -> bool:
    """They come with scikit-learn."""
    return True
