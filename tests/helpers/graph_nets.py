"""Small networks that can only be cut as their traced graph: sizes are baked into their forward."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """Fused query, key and value; the number of heads and the width are written down in plain attributes."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.shape = (heads, dim // heads)

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, _ = x.shape
        q, k, v = self.qkv(x).reshape(n, tokens, 3, *self.shape).permute(2, 0, 3, 1, 4)
        out: Tensor = self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return out


class Encoder(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, dim: int, heads: int, *, fused: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = Attention(dim, heads) if fused else nn.MultiheadAttention(dim, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Dropout(0.1), nn.Linear(2 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + (self.attention(y) if isinstance(self.attention, Attention) else self.attention(y, y, y)[0])
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class VisionTransformer(nn.Module):
    """Patches of 4 x 4 pixels, a class token, two blocks of 4 heads; (N, 1, 8, 8) to (N, classes)."""

    def __init__(self, *, classes: int = 4, dim: int = 16, side: int = 8) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, dim, 4, 4)
        self.stem_norm = nn.BatchNorm2d(dim)
        self.token = nn.Parameter(torch.randn(1, 1, dim) * 0.1)
        self.positions = nn.Parameter(torch.randn(1, (side // 4) ** 2 + 1, dim) * 0.1)
        self.blocks = nn.Sequential(Encoder(dim, 4, fused=False), Encoder(dim, 4, fused=True))
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, classes)
        self.register_buffer("slopes", torch.linspace(0.5, 1.5, dim), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem_norm(self.patches(x)).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x * self.slopes], 1) + self.positions
        out: Tensor = self.head(self.norm(self.blocks(x))[:, 0])
        return out


class ShuffleUnit(nn.Module):
    """Half of the channels pass, half are convolved, then the two halves are interleaved."""

    def __init__(self, half: int) -> None:
        super().__init__()
        self.half = half
        self.branch = nn.Sequential(
            nn.Conv2d(half, half, 1, bias=False),
            nn.BatchNorm2d(half),
            nn.ReLU(),
            nn.Conv2d(half, half, 3, padding=1, groups=half, bias=False),
            nn.BatchNorm2d(half),
            nn.Conv2d(half, half, 1, bias=False),
            nn.BatchNorm2d(half),
        )

    def forward(self, x: Tensor) -> Tensor:
        n, _, height, width = x.shape
        left, right = x[:, : self.half], x[:, self.half :]
        x = torch.cat([left, self.branch(right)], 1).view(n, 2, self.half, height, width)
        return x.transpose(1, 2).reshape(n, 2 * self.half, height, width)


class ShuffleNet(nn.Module):
    """Two units between a stem and a classifier; (N, 1, 8, 8) to (N, classes)."""

    def __init__(self, *, classes: int = 4, half: int = 8) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 2 * half, 3, 2, 1, bias=False), nn.BatchNorm2d(2 * half), nn.ReLU())
        self.units = nn.Sequential(ShuffleUnit(half), ShuffleUnit(half))
        self.head = nn.Linear(2 * half, classes)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.units(self.stem(x)).mean((2, 3)))
        return out


class OneByOne(VisionTransformer):
    """Its class token is for one image: the graph takes no other batch."""

    def forward(self, x: Tensor) -> Tensor:
        if len(x) != 1:
            return torch.cat([self(image[None]) for image in x])
        return super().forward(x)
