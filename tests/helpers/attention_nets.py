"""Attention as people write it, small."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DIM, HEADS = 16, 4


def tokens(batch: int = 2, length: int = 5, width: int = 12) -> Tensor:
    return torch.randn(batch, length, width, generator=torch.Generator().manual_seed(0))


class Tokens(nn.Module):
    """Linear layer (12 to 16), a part that mixes tokens, mean over them, classifier."""

    def __init__(self, part: nn.Module, width: int = DIM, after: int | None = None) -> None:
        super().__init__()
        self.embed, self.part, self.head = nn.Linear(12, width), part, nn.Linear(after or width, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.part(self.embed(x)).mean(1))  # type: ignore[no-any-return]


class FusedProjection(nn.Module):
    """One linear layer for queries, keys and values, as in timm; optionally norms inside each head."""

    def __init__(self, *, fused: bool = True, norm: bool = False, dim: int = DIM, heads: int = HEADS) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.fused = heads, dim // heads, fused
        self.scale = self.head_dim**-0.5
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.q_norm = nn.LayerNorm(self.head_dim) if norm else nn.Identity()
        self.k_norm = nn.LayerNorm(self.head_dim) if norm else nn.Identity()

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        return q @ k.transpose(-2, -1)

    def written_out(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return self.scores(q * self.scale, k).softmax(-1) @ v

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        q, k = self.q_norm(q), self.k_norm(k)
        y = F.scaled_dot_product_attention(q, k, v) if self.fused else self.written_out(q, k, v)
        return self.proj(y.transpose(1, 2).reshape(b, n, c))  # type: ignore[no-any-return]


class OwnNorm(nn.Module):
    """A norm inside each head, written out."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(width) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


class UnitNorm(nn.Module):
    """Queries and keys of length one, at a temperature of each head's own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.rand(HEADS, 1, 1) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=-1) * self.temperature


class NormedQueries(FusedProjection):
    """Norms of queries and keys that are not torch's, and a gate of each head's own."""

    def __init__(self, norm: type[nn.Module] = OwnNorm, *, gated: bool = False) -> None:
        super().__init__()
        self.q_norm, self.k_norm = norm(self.head_dim), norm(self.head_dim)
        self.gate = nn.Linear(DIM, HEADS) if gated else None

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(self.q_norm(q), self.k_norm(k), v).transpose(1, 2)
        if self.gate is not None:
            y = y * self.gate(x).sigmoid().unsqueeze(-1)
        return self.proj(y.reshape(b, n, c))  # type: ignore[no-any-return]


class Masked(FusedProjection):
    """Scores with a mask that forward spreads over heads: padding, or a causal one that the model keeps."""

    def __init__(self, spread: str) -> None:
        super().__init__(fused=False)
        self.spread = spread
        self.register_buffer("causal", torch.zeros(1, 1, 9, 9).masked_fill(torch.ones(9, 9).triu(1).bool(), -1e9))

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        s, padding = super().scores(q, k), q.mean((1, 3))[:, None] > 0  # (b, 1, n)
        b, h, n, _ = s.shape
        if self.spread == "kept":
            return s + self.causal[:, :, :n, :n].expand(b, h, -1, -1)
        if self.spread == "numbers":
            return s + (torch.zeros(1, self.num_heads, n, n) - 1e9 * padding[:, None].float())
        batch = (torch.ones(n, n).triu(1) * -1e9)[None, None].expand(b, 1, n, n)
        if self.spread == "twice":
            return s + batch.expand(b, h, n, n)
        if self.spread == "chosen":  # as the cross-attention of T5
            return s + torch.where(batch < 0, -1e9, torch.zeros(1, self.num_heads, n, n))
        if self.spread == "heads first":
            return s + (torch.ones(n, n).triu(1) * -1e9)[None, None].expand(1, h, n, n).expand(b, h, n, n)
        if self.spread == "stacked":
            return s + torch.cat([batch] * h, 1)
        if self.spread == "folded twice":
            return (s.flatten(0, 1) + padding.expand(-1, n, -1).repeat_interleave(h, 0) * -1e9).view(b, h, n, n)
        if self.spread == "folded":
            return s.flatten(0, 1).masked_fill(padding.repeat_interleave(h, 0), -1e9).view(b, h, n, n)
        return s.masked_fill(padding[:, None].expand(-1, h, n, -1), -1e9)


class WindowAttention(FusedProjection):
    """A learned bias for every head and relative position, looked up in a table, as in Swin."""

    def __init__(self, length: int) -> None:
        super().__init__(fused=False)
        self.table = nn.Parameter(torch.randn(2 * length - 1, HEADS))
        position = torch.arange(length)
        self.register_buffer("index", position[:, None] - position[None, :] + length - 1)
        self.length = length

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        bias = self.table[self.index.view(-1)].view(self.length, self.length, -1)  # type: ignore[operator, index]
        return q @ k.transpose(-2, -1) + bias.permute(2, 0, 1).contiguous().unsqueeze(0)


class BatchedProducts(nn.Module):
    """Separate projections; heads are folded into the batch for `bmm`, and scores start from a bias by `baddbmm`."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(DIM, DIM) for _ in range(4))
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape

        def fold(y: Tensor) -> Tensor:
            return y.view(b, n, HEADS, -1).transpose(1, 2).reshape(b * HEADS, n, -1)

        q, k, v = fold(self.q(x)), fold(self.k(x)), fold(self.v(x))
        scale = 1 / math.sqrt(DIM // HEADS)
        if self.bias:
            scores = torch.baddbmm(torch.zeros(1, 1, n), q, k.transpose(1, 2), alpha=scale)
        else:
            scores = torch.bmm(q, k.transpose(1, 2)) * scale
        y = torch.bmm(scores.softmax(-1), v).view(b, HEADS, n, -1).transpose(1, 2).reshape(b, n, -1)
        return self.o(y)  # type: ignore[no-any-return]


class Einsum(nn.Module):
    """Projections, scores and means as einsums over parameters of three dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.wq, self.wk, self.wv = (nn.Parameter(torch.randn(DIM, HEADS, 4) / 4) for _ in range(3))
        self.wo = nn.Parameter(torch.randn(HEADS, 4, DIM) / 4)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (torch.einsum("bnd,dhe->bhne", x, w) for w in (self.wq, self.wk, self.wv))
        scores = torch.einsum("bhne,bhme->bhnm", q, k) / 2
        mean = torch.einsum("bhnm,bhme->bhne", scores.softmax(-1), v)
        return torch.einsum("bhne,hed->bnd", mean, self.wo)


class GroupedQueries(nn.Module):
    """Four query heads share two key and value heads, with rotary positions, as in Llama."""

    def __init__(self, *, fused: bool = True, length: int = 5) -> None:
        super().__init__()
        self.q_proj, self.o_proj = nn.Linear(DIM, 16, bias=False), nn.Linear(16, DIM, bias=False)
        self.k_proj, self.v_proj = (nn.Linear(DIM, 8, bias=False) for _ in range(2))
        angle = torch.arange(length)[:, None] * 0.1 ** torch.arange(2)[None, :]
        self.register_buffer("cos", torch.cat([angle.cos()] * 2, -1), persistent=False)
        self.register_buffer("sin", torch.cat([angle.sin()] * 2, -1), persistent=False)
        self.fused = fused

    def rotated(self, x: Tensor) -> Tensor:
        one, other = x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]
        return x * self.cos + torch.cat((-other, one), -1) * self.sin  # type: ignore[operator]

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q = self.rotated(self.q_proj(x).view(b, n, -1, 4).transpose(1, 2))
        k = self.rotated(self.k_proj(x).view(b, n, -1, 4).transpose(1, 2))
        v = self.v_proj(x).view(b, n, -1, 4).transpose(1, 2)
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        else:
            k, v = (t[:, :, None].expand(b, 2, 2, n, 4).reshape(b, 4, n, 4) for t in (k, v))
            y = (q @ k.transpose(-1, -2) / 2).softmax(-1) @ v
        return self.o_proj(y.transpose(1, 2).reshape(b, n, -1))  # type: ignore[no-any-return]


class Cross(nn.Module):
    """Learned queries look at the tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(1, 3, DIM))
        self.attention = nn.MultiheadAttention(DIM, HEADS, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        queries = self.queries.expand(len(x), -1, -1)
        return self.attention(queries, x, x, need_weights=False)[0]  # type: ignore[no-any-return]


class Multihead(nn.Module):
    """torch's own attention of a sequence with itself."""

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.need_weights = settings.pop("need_weights", True)
        self.batch_first = settings.get("batch_first", False)
        self.attention = nn.MultiheadAttention(DIM, HEADS, **settings)

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.batch_first else x.transpose(0, 1)
        y = self.attention(x, x, x, need_weights=self.need_weights)[0]
        return y if self.batch_first else y.transpose(0, 1)  # type: ignore[no-any-return]


class Vision(nn.Module):
    """Patches, a class token, learned positions, blocks before whose parts there are norms, layer scale."""

    def __init__(self, depth: int = 2) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, DIM, 3, 3)
        self.token = nn.Parameter(torch.randn(1, 1, DIM))
        self.positions = nn.Parameter(torch.randn(1, 5, DIM))
        self.blocks = nn.ModuleList(Block() for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(DIM), nn.Linear(DIM, 5)

    def forward(self, image: Tensor) -> Tensor:
        x = self.patches(image).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.positions
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])  # type: ignore[no-any-return]


class Block(nn.Module):
    """Attention and a network for every token, each with its norm and layer scale."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2, self.attention = nn.LayerNorm(DIM), nn.LayerNorm(DIM), FusedProjection()
        self.mlp = nn.Sequential(nn.Linear(DIM, 24), nn.GELU(), nn.Dropout(0.1), nn.Linear(24, DIM))
        self.scale1, self.scale2 = (nn.Parameter(1e-4 * torch.ones(DIM)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.scale1 * self.attention(self.norm1(x))
        return x + self.scale2 * self.mlp(self.norm2(x))  # type: ignore[no-any-return]
