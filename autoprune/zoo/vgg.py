"""CIFAR VGG with batch norm: Simonyan and Zisserman 2015, https://arxiv.org/abs/1409.1556, table 1, columns D and E.

As pruning papers use it (Network Slimming, https://arxiv.org/abs/1708.06519): the convolutions of the original, each
3x3 with batch norm and without bias, then one linear layer instead of three.

| stage | output | channels | convolutions: VGG-16 | VGG-19 |
|-------|--------|----------|----------------------|--------|
| 1     | 32x32  | 64       | 2                    | 2      |
| 2     | 16x16  | 128      | 2                    | 2      |
| 3     | 8x8    | 256      | 3                    | 4      |
| 4     | 4x4    | 512      | 3                    | 4      |
| 5     | 2x2    | 512      | 3                    | 4      |

A 2x2 max pooling precedes stages 2 to 5; the average of what remains (2x2 here, 1x1 for 16x16 images) is classified.
Published: VGG-16 14.7 M parameters and 313 M multiply-adds, VGG-19 20.0 M and 398 M.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from autoprune.zoo.scaling import check_sizes, scaled


@final
class VGG(nn.Module):
    """The network of the table above.

    Args:
        depths: convolutions of each of the five stages.
        in_channels: channels of the images, which are at least 16x16.
        classes: number of outputs.
        width: multiplies every channel count.

    Raises:
        ConfigError: a size is not allowed.
    """

    def __init__(self, depths: Sequence[int], *, in_channels: int, classes: int, width: float) -> None:
        super().__init__()
        check_sizes(in_channels, classes)
        layers: list[nn.Module] = []
        channels = in_channels
        for stage, (full, depth) in enumerate(zip((64, 128, 256, 512, 512), depths, strict=True)):
            if stage > 0:
                layers.append(nn.MaxPool2d(2))
            for _ in range(depth):
                before, channels = channels, scaled(full, width)
                layers += [
                    nn.Conv2d(before, channels, 3, padding=1, bias=False),
                    nn.BatchNorm2d(channels),
                    nn.ReLU(inplace=True),
                ]
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, in_channels, H, W) to logits (N, classes)."""
        return self.linear(torch.flatten(self.pool(self.features(x)), 1))


def vgg16(*, in_channels: int = 3, classes: int = 10, width: float = 1.0) -> VGG:
    """VGG-16 with batch norm: 13 convolutions, 14.7 M parameters."""
    return VGG((2, 2, 3, 3, 3), in_channels=in_channels, classes=classes, width=width)


def vgg19(*, in_channels: int = 3, classes: int = 10, width: float = 1.0) -> VGG:
    """VGG-19 with batch norm: 16 convolutions, 20.0 M parameters."""
    return VGG((2, 2, 4, 4, 4), in_channels=in_channels, classes=classes, width=width)
