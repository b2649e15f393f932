"""CIFAR ResNets: He et al. 2016, "Deep Residual Learning", https://arxiv.org/abs/1512.03385, section 4.2.

A 3x3 convolution, three stages of n blocks of two 3x3 convolutions, average pooling, one linear layer; depth 6n + 2.

| stage  | output | channels | blocks |
|--------|--------|----------|--------|
| stem   | 32x32  | 16       |        |
| stage1 | 32x32  | 16       | n      |
| stage2 | 16x16  | 32       | n      |
| stage3 | 8x8    | 64       | n      |

Multiply-adds (convolutions and linear, 3x32x32) and parameters with the paper's parameter-free shortcut (option A,
`shortcut="pad"`), and with 1x1 convolutions, the default, on which every channel can be cut:

| network    | pad                      | projection               |
|------------|--------------------------|--------------------------|
| ResNet-20  | 40,551,040 / 269,722     | 40,813,184 / 272,474     |
| ResNet-56  | 125,485,696 / 853,018    | 125,747,840 / 855,770    |
| ResNet-110 | 252,887,680 / 1,727,962  | 253,149,824 / 1,730,714  |
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoprune.errors import ConfigError, suggest
from autoprune.zoo.scaling import check_sizes, scaled

Shortcut = Literal["projection", "pad"]
SHORTCUTS = ("projection", "pad")


@final
class PadShortcut(nn.Module):
    """Option A: every `stride`-th pixel, with `before` and `after` zero channels around the given ones; no weights.

    Maps (N, C, H, W) to (N, before + C + after, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(self, stride: int, before: int, after: int) -> None:
        super().__init__()
        self.stride, self.before, self.after = stride, before, after

    def forward(self, x: Tensor) -> Tensor:
        """Subsample, then pad the channels."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))

    def extra_repr(self) -> str:
        """The three numbers, for `print(model)`."""
        return f"stride={self.stride}, before={self.before}, after={self.after}"


@final
class BasicBlock(nn.Module):
    """Two 3x3 convolutions around which the shortcut goes; ReLU after the sum."""

    def __init__(self, before: int, after: int, *, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.shortcut = _shortcut(before, after, stride=stride, kind=shortcut)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, before, H, W) to (N, after, H / stride, W / stride)."""
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


def _shortcut(before: int, after: int, *, stride: int, kind: Shortcut) -> nn.Module:
    if stride == 1 and before == after:
        return nn.Identity()
    if kind == "projection":
        return nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
    left = (after - before) // 2
    return PadShortcut(stride, left, after - before - left)


@final
class ResNet(nn.Module):
    """The network of the table above.

    Args:
        blocks: n, the number of blocks of each stage.
        in_channels: channels of the images.
        classes: number of outputs.
        width: multiplies every channel count.
        shortcut: "projection" (1x1 convolution and norm) or "pad" (no weights) where the shape changes.

    Raises:
        ConfigError: a size or the shortcut is not allowed.
    """

    def __init__(self, blocks: int, *, in_channels: int, classes: int, width: float, shortcut: Shortcut) -> None:
        super().__init__()
        check_sizes(in_channels, classes)
        if shortcut not in SHORTCUTS:
            raise ConfigError(
                f"shortcut {shortcut!r} is not known; choose one of {', '.join(SHORTCUTS)}."
                f"{suggest(str(shortcut), SHORTCUTS)}"
            )
        channels = scaled(16, width)
        self.conv = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(channels)
        stages: OrderedDict[str, nn.Module] = OrderedDict()
        for stage, full in enumerate((16, 32, 64), start=1):
            before, channels = channels, scaled(full, width)
            first = BasicBlock(before, channels, stride=1 if stage == 1 else 2, shortcut=shortcut)
            rest = [BasicBlock(channels, channels, stride=1, shortcut=shortcut) for _ in range(blocks - 1)]
            stages[f"stage{stage}"] = nn.Sequential(first, *rest)
        self.stages = nn.Sequential(stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, in_channels, H, W) to logits (N, classes)."""
        out = self.stages(F.relu(self.bn(self.conv(x))))
        return self.linear(torch.flatten(self.pool(out), 1))


def resnet20(
    *, in_channels: int = 3, classes: int = 10, width: float = 1.0, shortcut: Shortcut = "projection"
) -> ResNet:
    """ResNet-20: n = 3, 0.27 M parameters."""
    return ResNet(3, in_channels=in_channels, classes=classes, width=width, shortcut=shortcut)


def resnet56(
    *, in_channels: int = 3, classes: int = 10, width: float = 1.0, shortcut: Shortcut = "projection"
) -> ResNet:
    """ResNet-56: n = 9, 0.86 M parameters."""
    return ResNet(9, in_channels=in_channels, classes=classes, width=width, shortcut=shortcut)


def resnet110(
    *, in_channels: int = 3, classes: int = 10, width: float = 1.0, shortcut: Shortcut = "projection"
) -> ResNet:
    """ResNet-110: n = 18, 1.73 M parameters."""
    return ResNet(18, in_channels=in_channels, classes=classes, width=width, shortcut=shortcut)
