"""Attention as people write it: how heads are split, scored and joined is drawn by chance."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from composed_sequences import WIDTH, Draw
from torch import Tensor, nn

HEADS_CALLED = ("h", "parts", "n", "count", "groups", "heads", "num_heads")
"""The last two are names that many give; whoever adapts those still does not know the others."""


class Attention(nn.Module):
    """Attention of a sequence with itself, or with a context; heads are split, scored and joined as drawn."""

    def __init__(self, draw: Draw, context: int = 0) -> None:
        super().__init__()
        heads, self.dim = draw.rng.choice([(2, 8), (4, 4), (4, 3), (2, 5)])
        inner = self.inner = heads * self.dim
        self.called = draw.one("heads are called", HEADS_CALLED)
        setattr(self, self.called, heads)
        self.split = draw.one("split", SPLITS)
        self.score = draw.one("score", ("matmul", "sdpa", "einsum", "bmm"))
        self.scale = draw.one("scale", ("constant", "constant", "of shape", "none"))
        self.join = draw.one("join", ("reshape -1", "flatten", "baked", "cat"))
        self.causal, self.drop = draw.perhaps(0.2), draw.one("attention dropout", ("none", "none", "none", "inside"))
        self.fused = not context and draw.perhaps(0.3)
        if self.fused:
            draw.habits.append("fused projection")
            self.qkv = nn.Linear(WIDTH, 3 * inner)
        else:
            widths = (WIDTH, context or WIDTH, context or WIDTH)
            self.q, self.k, self.v = (nn.Linear(width, inner, bias=draw.perhaps(0.7)) for width in widths)
        self.normed = draw.perhaps(0.15)
        if self.normed:
            draw.habits.append("norm of queries and keys")
            self.q_norm, self.k_norm = ((nn.LayerNorm if draw.perhaps(0.5) else nn.RMSNorm)(self.dim) for _ in range(2))
        self.proj = nn.Linear(inner, WIDTH)

    @property
    def reader(self) -> nn.Module:
        return self.qkv if self.fused else self.q

    def divided(self, x: Tensor) -> Tensor:
        """(n, length, inner) to (n, heads, length, dim)."""
        return SPLIT[self.split](x, getattr(self, self.called), self.dim)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        n, length, _ = x.shape
        c = x if context is None else context
        q, k, v = map(self.divided, self.qkv(x).chunk(3, -1) if self.fused else (self.q(x), self.k(c), self.v(c)))
        if self.normed:
            q, k = self.q_norm(q), self.k_norm(k)
        y = self.attended(q, k, v)
        if self.join == "reshape -1":
            y = y.transpose(1, 2).reshape(n, length, -1)
        elif self.join == "flatten":
            y = y.transpose(1, 2).flatten(2)
        elif self.join == "baked":
            y = y.transpose(1, 2).reshape(n, length, self.inner)
        else:
            y = torch.cat(list(y.unbind(1)), -1)
        return self.proj(y)  # type: ignore[no-any-return]

    def attended(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scale = {"constant": self.dim**-0.5, "of shape": q.shape[-1] ** -0.5, "none": 1.0}[self.scale]
        drop = 0.2 if self.drop == "inside" else 0.0
        if self.score == "sdpa":
            return F.scaled_dot_product_attention(
                q, k, v, scale=scale, is_causal=self.causal, dropout_p=drop if self.training else 0.0
            )
        if self.score == "bmm":
            flat = torch.bmm(q.flatten(0, 1), k.flatten(0, 1).transpose(1, 2)) * scale
            weights = flat.view(len(q), -1, *flat.shape[1:])
        elif self.score == "einsum":
            weights = torch.einsum("nhqd,nhkd->nhqk", q, k) * scale
        else:
            weights = (q * scale) @ k.transpose(-2, -1)
        if self.causal:
            later = torch.ones(weights.shape[-2:], dtype=torch.bool).triu(1)  # nobody looks at what comes later
            weights = weights.masked_fill(later, float("-inf"))
        return F.dropout(weights.softmax(-1), drop, self.training) @ v


SPLIT: dict[str, Callable[[Tensor, int, int], Tensor]] = {
    "view heads": lambda x, h, d: x.view(*x.shape[:2], h, -1).transpose(1, 2),
    "view dim": lambda x, h, d: x.view(*x.shape[:2], -1, d).transpose(1, 2),
    "view both": lambda x, h, d: x.view(*x.shape[:2], h, d).transpose(1, 2),
    "reshape heads": lambda x, h, d: x.reshape(len(x), x.shape[1], h, -1).permute(0, 2, 1, 3),
    "unflatten heads": lambda x, h, d: x.unflatten(-1, (h, -1)).transpose(1, 2),
    "unflatten dim": lambda x, h, d: x.unflatten(-1, (-1, d)).transpose(1, 2),
    "chunk": lambda x, h, d: torch.stack(x.chunk(h, -1), 1),
    "split": lambda x, h, d: torch.stack(x.split(d, -1), 1),
    "quotient": lambda x, h, d: x.view(*x.shape[:2], h, x.shape[-1] // h).transpose(1, 2),
    "interleaved": lambda x, h, d: x.view(*x.shape[:2], -1, h).permute(0, 3, 1, 2),
}
SPLITS = ("view heads", "view heads", "view heads", *SPLIT)
