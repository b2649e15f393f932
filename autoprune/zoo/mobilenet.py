"""CIFAR MobileNetV2: Sandler et al. 2018, https://arxiv.org/abs/1801.04381, table 2.

The paper's layers with the strides usual for 32x32 images: the stem and the second stage keep the resolution (stride 1
instead of 2), so the last map is 4x4. A residual sum only where a block keeps its shape, as in the paper; the common
CIFAR version (2.30 M parameters) adds a 1x1 convolution at each other stride-1 block, which the paper does not have.

| stage | output | expansion t | channels c | blocks n | stride s |
|-------|--------|-------------|------------|----------|----------|
| stem  | 32x32  |             | 32         |          | 1        |
| 1     | 32x32  | 1           | 16         | 1        | 1        |
| 2     | 32x32  | 6           | 24         | 2        | 1        |
| 3     | 16x16  | 6           | 32         | 3        | 2        |
| 4     | 8x8    | 6           | 64         | 4        | 2        |
| 5     | 8x8    | 6           | 96         | 3        | 1        |
| 6     | 4x4    | 6           | 160        | 3        | 2        |
| 7     | 4x4    | 6           | 320        | 1        | 1        |
| head  | 4x4    |             | 1280       |          | 1        |

2,236,682 parameters for ten classes, those of the ImageNet network with its last layer exchanged.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from autoprune.zoo.scaling import check_sizes, scaled

STAGES = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def _conv_norm(before: int, after: int, kernel: int, *, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(before, after, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(after)]


@final
class InvertedResidual(nn.Module):
    """Widen by `expansion` (1x1), depthwise 3x3, narrow (1x1, linear); summed with the input if the shape is kept."""

    def __init__(self, before: int, after: int, *, expansion: int, stride: int) -> None:
        super().__init__()
        inner = before * expansion
        widen = [*_conv_norm(before, inner, 1), nn.ReLU6(inplace=True)] if expansion > 1 else []
        depthwise = [*_conv_norm(inner, inner, 3, stride=stride, groups=inner), nn.ReLU6(inplace=True)]
        self.layers = nn.Sequential(*widen, *depthwise, *_conv_norm(inner, after, 1))
        self.residual = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, before, H, W) to (N, after, H / stride, W / stride)."""
        return x + self.layers(x) if self.residual else self.layers(x)


@final
class MobileNetV2(nn.Module):
    """The network of the table above.

    Args:
        in_channels: channels of the images.
        classes: number of outputs.
        width: multiplies every channel count, the head's too (the paper never narrows the head).

    Raises:
        ConfigError: a size is not allowed.
    """

    def __init__(self, *, in_channels: int, classes: int, width: float) -> None:
        super().__init__()
        check_sizes(in_channels, classes)
        channels = scaled(32, width)
        layers = [*_conv_norm(in_channels, channels, 3), nn.ReLU6(inplace=True)]
        for expansion, full, blocks, first_stride in STAGES:
            for block in range(blocks):
                before, channels = channels, scaled(full, width)
                stride = first_stride if block == 0 else 1
                layers.append(InvertedResidual(before, channels, expansion=expansion, stride=stride))
        head = scaled(1280, width)
        self.features = nn.Sequential(*layers, *_conv_norm(channels, head, 1), nn.ReLU6(inplace=True))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(head, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, in_channels, H, W) to logits (N, classes)."""
        return self.linear(torch.flatten(self.pool(self.features(x)), 1))


def mobilenetv2(*, in_channels: int = 3, classes: int = 10, width: float = 1.0) -> MobileNetV2:
    """MobileNetV2 for 32x32 images: 2.24 M parameters."""
    return MobileNetV2(in_channels=in_channels, classes=classes, width=width)
