"""Pre-activation ResNet: He et al. 2016, "Identity Mappings", https://arxiv.org/abs/1603.05027, section 4, figure 4e.

The PreResNet-164 that Network Slimming prunes (Liu et al. 2017, https://arxiv.org/abs/1708.06519, section 4.1):
three stages of n = 18 bottlenecks, depth 9n + 2. Where the shape changes, a 1x1 convolution without a norm.

| stage  | output | bottleneck | channels | blocks |
|--------|--------|------------|----------|--------|
| stem   | 32x32  |            | 16       |        |
| stage1 | 32x32  | 16         | 64       | 18     |
| stage2 | 16x16  | 32         | 128      | 18     |
| stage3 | 8x8    | 64         | 256      | 18     |

Published: 1.70 M parameters, 0.25 G multiply-adds (half of the 4.99e8 operations of Network Slimming's table 1).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoprune.zoo.scaling import check_sizes, scaled


@final
class PreActBottleneck(nn.Module):
    """1x1, 3x3, 1x1, each behind its norm and ReLU; nothing follows the sum."""

    def __init__(self, before: int, inner: int, after: int, *, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(before)
        self.conv1 = nn.Conv2d(before, inner, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, after, 1, bias=False)
        same = stride == 1 and before == after
        self.shortcut = nn.Identity() if same else nn.Conv2d(before, after, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, before, H, W) to (N, after, H / stride, W / stride)."""
        out = self.conv1(F.relu(self.bn1(x)))
        out = self.conv2(F.relu(self.bn2(out)))
        return self.conv3(F.relu(self.bn3(out))) + self.shortcut(x)


@final
class PreResNet(nn.Module):
    """The network of the table above.

    Args:
        blocks: n, the number of bottlenecks of each stage.
        in_channels: channels of the images.
        classes: number of outputs.
        width: multiplies every channel count.

    Raises:
        ConfigError: a size is not allowed.
    """

    def __init__(self, blocks: int, *, in_channels: int, classes: int, width: float) -> None:
        super().__init__()
        check_sizes(in_channels, classes)
        channels = scaled(16, width)
        self.conv = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        stages: OrderedDict[str, nn.Module] = OrderedDict()
        for stage, full in enumerate((16, 32, 64), start=1):
            before, inner, channels = channels, scaled(full, width), scaled(4 * full, width)
            first = PreActBottleneck(before, inner, channels, stride=1 if stage == 1 else 2)
            rest = [PreActBottleneck(channels, inner, channels, stride=1) for _ in range(blocks - 1)]
            stages[f"stage{stage}"] = nn.Sequential(first, *rest)
        self.stages = nn.Sequential(stages)
        self.bn = nn.BatchNorm2d(channels)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, in_channels, H, W) to logits (N, classes)."""
        out = F.relu(self.bn(self.stages(self.conv(x))))
        return self.linear(torch.flatten(self.pool(out), 1))


def preresnet164(*, in_channels: int = 3, classes: int = 10, width: float = 1.0) -> PreResNet:
    """PreResNet-164: n = 18, 1.70 M parameters."""
    return PreResNet(18, in_channels=in_channels, classes=classes, width=width)
