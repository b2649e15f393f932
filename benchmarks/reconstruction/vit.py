"""A small vision transformer (Dosovitskiy et al. 2021, arXiv 2010.11929): pre-norm blocks, mean of the tokens."""

from __future__ import annotations

from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@final
class Attention(nn.Module):
    """Multi-head self-attention with separate projections.

    Args:
        dim: of a token.
        heads: how many.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (N, T, dim) to (N, T, dim)."""
        q, k, v = (
            projection(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projection in (self.query, self.key, self.value)
        )
        attended = F.scaled_dot_product_attention(q, k, v)
        return self.out(attended.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


@final
class Block(nn.Module):
    """Attention and a perceptron, each behind a norm and beside a shortcut."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(dim), Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.widen, self.narrow = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (N, T, dim) to (N, T, dim)."""
        x = x + self.attention(self.norm1(x))
        return x + self.narrow(F.gelu(self.widen(self.norm2(x))))


@final
class SmallViT(nn.Module):
    """Patches of 4 x 4 pixels as tokens, `depth` blocks, a linear classifier on the mean of the tokens.

    Args:
        in_channels: of the images.
        side: of the images, in pixels.
        classes: number of outputs.
        dim: of a token.
        depth: number of blocks.
        heads: of each attention.
    """

    def __init__(
        self, in_channels: int, side: int, *, classes: int = 10, dim: int = 96, depth: int = 4, heads: int = 4
    ):
        super().__init__()
        self.patches = nn.Conv2d(in_channels, dim, 4, stride=4)
        self.position = nn.Parameter(0.02 * torch.randn(1, (side // 4) ** 2, dim))
        self.blocks = nn.Sequential(*(Block(dim, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, in_channels, side, side) to logits (N, classes)."""
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.position
        return self.head(self.norm(self.blocks(tokens)).mean(dim=1))  # type: ignore[no-any-return]
