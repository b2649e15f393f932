"""RandAugment: Cubuk et al. 2020, arXiv 1909.13719; torchvision's, where it is installed."""

from __future__ import annotations

from importlib import import_module
from typing import final

import torch
from torch import Tensor

from autoprune.config.training import RandAugmentOptions
from autoprune.data.base import ImageTransform
from autoprune.errors import ConfigError
from autoprune.randomness import seeded


def rand_augment(options: RandAugmentOptions, *, own: bool) -> ImageTransform:
    """What changes images of a batch, each by changes of its own.

    Args:
        options: how many changes, how strong.
        own: whether the data set's own augmentation comes after it.

    Raises:
        ConfigError: torchvision is not installed.
    """
    try:
        made = import_module("torchvision.transforms.v2").RandAugment(options.num_ops, options.magnitude)
    except (ImportError, OSError, RuntimeError) as error:  # RuntimeError: made for another torch
        raise ConfigError(
            f"training: rand_augment needs torchvision, which cannot be imported ({error}); install it (pip install "
            f"torchvision), or leave rand_augment out"
        ) from error
    return _Each(made, own)


@final
class _Each(ImageTransform):
    def __init__(self, change: torch.nn.Module, own: bool) -> None:
        self._change, self.then_own = change, own

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        with seeded(int(torch.randint(2**62, (), generator=generator))):
            return torch.stack([self._change(image) for image in images])
