"""CIFAR DenseNet: Huang et al. 2017, https://arxiv.org/abs/1608.06993, section 3, "Implementation Details".

DenseNet-40 with growth k = 12, no bottleneck, no compression: three dense blocks of 12 layers (norm, ReLU, 3x3
convolution to k channels, joined to the input), between them a transition (norm, ReLU, 1x1 convolution, 2x2 average).

| stage  | output | channels at its end |
|--------|--------|---------------------|
| stem   | 32x32  | 16                  |
| block1 | 32x32  | 160                 |
| block2 | 16x16  | 304                 |
| block3 | 8x8    | 448                 |

Published: 1.0 M parameters (table 2); 1,019,722 exactly. Dropout, used there without augmentation only, is left out.
"""

from __future__ import annotations

from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoprune.zoo.scaling import check_sizes, scaled


@final
class DenseLayer(nn.Module):
    """Norm, ReLU, 3x3 convolution to `growth` channels, appended to the input."""

    def __init__(self, before: int, growth: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(before)
        self.conv = nn.Conv2d(before, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, before, H, W) to (N, before + growth, H, W)."""
        return torch.cat((x, self.conv(F.relu(self.bn(x)))), dim=1)


@final
class DenseNet(nn.Module):
    """The network of the table above.

    Args:
        depth: layers of each dense block.
        growth: k, channels that a layer adds.
        in_channels: channels of the images.
        classes: number of outputs.
        width: multiplies the growth and the stem, and with them every channel count.

    Raises:
        ConfigError: a size is not allowed.
    """

    def __init__(self, depth: int, *, growth: int, in_channels: int, classes: int, width: float) -> None:
        super().__init__()
        check_sizes(in_channels, classes)
        growth, channels = scaled(growth, width), scaled(16, width)
        layers: list[nn.Module] = [nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)]
        for block in range(3):
            if block > 0:
                layers.append(_transition(channels))
            layers += [DenseLayer(channels + i * growth, growth) for i in range(depth)]
            channels += depth * growth
        self.features = nn.Sequential(*layers)
        self.bn = nn.BatchNorm2d(channels)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, in_channels, H, W) to logits (N, classes)."""
        out = F.relu(self.bn(self.features(x)))
        return self.linear(torch.flatten(self.pool(out), 1))


def _transition(channels: int) -> nn.Sequential:
    conv = nn.Conv2d(channels, channels, 1, bias=False)
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(inplace=True), conv, nn.AvgPool2d(2))


def densenet40(*, in_channels: int = 3, classes: int = 10, width: float = 1.0) -> DenseNet:
    """DenseNet-40 with growth 12: 1.02 M parameters."""
    return DenseNet(12, growth=12, in_channels=in_channels, classes=classes, width=width)
