"""Two networks that everybody writes by hand: a U-Net and an LSTM classifier."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class UNet(nn.Module):
    """Encoder and decoder of `depth` stages with skips: (N, 3, H, W) to (N, classes, H, W), H and W powers of two."""

    def __init__(self, *, width: int = 16, depth: int = 3, classes: int = 4) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(depth + 1)]
        self.down = nn.ModuleList(_double(a, b) for a, b in zip([3, *widths[:-2]], widths[:-1], strict=True))
        self.bottom = _double(widths[-2], widths[-1])
        pairs = [(widths[level + 1], widths[level]) for level in reversed(range(depth))]
        self.lift = nn.ModuleList(nn.ConvTranspose2d(below, here, 2, stride=2) for below, here in pairs)
        self.up = nn.ModuleList(_double(2 * here, here) for _, here in pairs)
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """One score per class and pixel."""
        skips = []
        for block in self.down:
            x = block(x)
            skips.append(x)
            x = nn.functional.max_pool2d(x, 2)
        x = self.bottom(x)
        for lift, block in zip(self.lift, self.up, strict=True):
            x = block(torch.cat([skips.pop(), lift(x)], dim=1))
        scores: Tensor = self.head(x)
        return scores


def _double(before: int, after: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (before, after):
        layers += [nn.Conv2d(channels, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers)


class LSTMClassifier(nn.Module):
    """Embedding, two LSTM layers, classifier on the last step: tokens (N, T) to (N, classes)."""

    def __init__(self, *, words: int = 1000, width: int = 64, hidden: int = 96, classes: int = 5) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, width)
        self.lstm = nn.LSTM(width, hidden, num_layers=2, batch_first=True)
        self.head = nn.Linear(hidden, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """One score per class."""
        outputs, _ = self.lstm(self.embedding(tokens))
        scores: Tensor = self.head(outputs[:, -1])
        return scores
