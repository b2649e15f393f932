"""The 1,797 handwritten digits that come with scikit-learn (Alpaydin and Kaynak 1998), 8 x 8 enlarged to 16 x 16."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits

from autoprune.data.arrays import Examples, image_splits
from autoprune.data.base import Augmentation, DataSplits

_SIZE = 16
_BRIGHTEST = 16.0  # of the original pixels
_HELD_OUT = 360


def load() -> DataSplits:
    """Digits: 1,077 to train on, 360 for validation, 360 for test, always the same ones."""
    original = load_digits()
    small = torch.from_numpy(original.images)[:, None] * (255.0 / _BRIGHTEST)
    images = F.interpolate(small, size=(_SIZE, _SIZE), mode="bilinear").round().to(torch.uint8)
    everything = Examples(images.numpy(), original.target.astype(np.int64))
    rest, test = everything.hold_out(_HELD_OUT)
    train, validation = rest.hold_out(_HELD_OUT)
    return image_splits(
        "digits",
        train=train,
        validation=validation,
        test=test,
        classes=10,
        augmentation=Augmentation(pad=2, flip=False),
    )
