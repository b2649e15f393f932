"""The networks around an idiom: maps, tokens and nodes with one thing in the middle that people write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH, HEADS, LENGTH = 32, 4, 10


class Maps(nn.Module):
    """Two convolutions with a step between them, and a classifier of means: (N, 3, 8, 8) to (N, 5)."""

    def __init__(self, step: Callable[[Any, Tensor], Tensor], *, width: int = 16, **parts: Any) -> None:
        super().__init__()
        self.step = step
        self.first, self.second = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(width, 24, 3, padding=1)
        self.head = nn.Linear(24, 5)
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Tensor:
        """Scores."""
        scores: Tensor = self.head(self.second(self.step(self, self.first(x).relu())).relu().mean((2, 3)))
        return scores


class Layers(nn.Module):
    """Two of a kind of layer, and a classifier: what `norm` makes of them is the idiom."""

    def __init__(self, first: nn.Module, second: nn.Module, last: nn.Module) -> None:
        super().__init__()
        self.first, self.second, self.last = first, second, last

    def forward(self, x: Tensor) -> Tensor:
        """Scores."""
        scores: Tensor = self.last(self.second(self.first(x).relu()).relu())
        return scores


class Attention(nn.Module):
    """One block of attention with its residual sum, queries, keys, values and scores open to change: (N, T, 12)."""

    def __init__(
        self,
        *,
        mask: Callable[[Any, Tensor], Tensor] | None = None,
        norm: Callable[[int], nn.Module] = lambda width: nn.Identity(),
        fused: bool = False,
        gated: bool = False,
        shared: int = HEADS,
    ) -> None:
        super().__init__()
        size = WIDTH // HEADS
        self.num_heads, self.repeats, self.size, self.fused, self.mask = HEADS, HEADS // shared, size, fused, mask
        self.embed, self.q, self.out = nn.Linear(12, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.k, self.v = nn.Linear(WIDTH, shared * size), nn.Linear(WIDTH, shared * size)
        self.q_norm, self.k_norm = norm(size), norm(size)
        self.gate = nn.Linear(WIDTH, HEADS) if gated else None
        self.head = nn.Linear(WIDTH, 5)

    def forward(self, x: Tensor) -> Tensor:
        """Scores."""
        x = self.embed(x)
        n, length, _ = x.shape
        q = self.q_norm(self.q(x).view(n, length, self.num_heads, self.size)).transpose(1, 2)
        k = self.k_norm(self.k(x).view(n, length, self.num_heads // self.repeats, self.size)).transpose(1, 2)
        v = self.v(x).view(n, length, self.num_heads // self.repeats, self.size).transpose(1, 2)
        if self.repeats > 1:
            k, v = (t.repeat_interleave(self.repeats, 1) for t in (k, v))
        y = F.scaled_dot_product_attention(q, k, v) if self.fused else self._written_out(q, k, v)
        y = y.transpose(1, 2)
        if self.gate is not None:
            y = y * self.gate(x).sigmoid()[..., None]
        scores: Tensor = self.head(x + self.out(y.reshape(n, length, -1)))
        return scores

    def _written_out(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = q @ k.transpose(-1, -2) * self.size**-0.5
        return (scores if self.mask is None else self.mask(self, scores)).softmax(-1) @ v


class OwnNorm(nn.Module):
    """Root mean square norm, written out."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Of the same shape."""
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


class Sequence(nn.Module):
    """A part that mixes tokens between two linear layers: (N, T, 12) to (N, T, 5)."""

    def __init__(self, part: nn.Module, take: Callable[[Any], Tensor] = lambda made: made, after: int = WIDTH) -> None:
        super().__init__()
        self.embed, self.part, self.head, self.take = nn.Linear(12, WIDTH), part, nn.Linear(after, 5), take

    def forward(self, x: Tensor) -> Tensor:
        """Scores."""
        scores: Tensor = self.head(self.take(self.part(self.embed(x))))
        return scores


class Encoder(nn.Module):
    """torch's encoder with its masks."""

    def __init__(self, *, causal: bool = False, padding: bool = False) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 2 * WIDTH, batch_first=True)
        self.causal, self.padding = causal, padding
        self.embed, self.head = nn.Embedding(50, WIDTH), nn.Linear(WIDTH, 5)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Scores."""
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1]) if self.causal else None
        y = self.encoder(self.embed(tokens), mask=mask, src_key_padding_mask=tokens.eq(0) if self.padding else None)
        scores: Tensor = self.head(y.mean(1))
        return scores


class GraphAttention(nn.Module):
    """Attention over the edges of a graph by scatter: nodes (N, 12), edges (2, E) to (N, 5)."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.project, self.head = nn.Linear(12, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 5)
        self.source, self.target = nn.Linear(WIDTH, 1), nn.Linear(WIDTH, 1)

    def forward(self, nodes: Tensor, edges: Tensor) -> Tensor:
        """Scores."""
        x = self.project(self.embed(nodes).relu())
        weights = F.leaky_relu(self.source(x)[edges[0]] + self.target(x)[edges[1]]).exp()
        total = weights.new_zeros(len(x), 1).index_add(0, edges[1], weights)
        y = torch.zeros_like(x).index_add(0, edges[1], x[edges[0]] * weights / total[edges[1]])
        scores: Tensor = self.head(y.relu())
        return scores


class SegNet(nn.Module):
    """Encoder that remembers where its maxima were, decoder that puts them back: (N, 3, H, W) to (N, 4, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList([nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 24, 3, padding=1)])
        self.up = nn.ModuleList([nn.Conv2d(24, 16, 3, padding=1), nn.Conv2d(16, 4, 3, padding=1)])

    def forward(self, x: Tensor) -> Tensor:
        """Scores for each pixel."""
        places = []
        for layer in self.down:
            x, index = F.max_pool2d(layer(x).relu(), 2, return_indices=True)
            places.append(index)
        for layer in self.up:
            x = layer(F.max_unpool2d(x, places.pop(), 2)).relu()
        return x


class Experts(nn.Module):
    """A bank of experts, each token by one of them, rows sorted by expert."""

    def __init__(self, *, grouped: bool) -> None:
        super().__init__()
        self.grouped, self.gate = grouped, nn.Linear(WIDTH, 4)
        self.up = nn.Parameter(torch.randn(4, 2 * WIDTH, WIDTH) * 0.1)
        self.down = nn.Parameter(torch.randn(4, WIDTH, 2 * WIDTH) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        """Of the same shape."""
        rows = x.flatten(0, 1)
        weight, expert = self.gate(rows).softmax(-1).max(-1)
        if not self.grouped:
            chosen = F.one_hot(expert, 4).to(x.dtype)
            y = torch.einsum("ne,nd,ehd->neh", chosen, rows, self.up).relu()
            return (x + (torch.einsum("neh,edh->nd", y, self.down) * weight[:, None]).view(x.shape)).relu()
        order = expert.argsort()
        ends = (expert[:, None] == torch.arange(4)).sum(0).cumsum(0).to(torch.int32)
        y = rows[order].bfloat16()
        y = torch._grouped_mm(y, self.up.transpose(1, 2).bfloat16(), offs=ends).relu()
        y = torch._grouped_mm(y, self.down.transpose(1, 2).bfloat16(), offs=ends).to(x.dtype)
        return x + (torch.zeros_like(rows).index_copy(0, order, y) * weight[:, None]).view(x.shape)


class KAN(nn.Module):
    """A layer of splines over a grid with a row for each input."""

    def __init__(self, before: int, after: int, knots: int = 8) -> None:
        super().__init__()
        self.after = after
        self.register_buffer("grid", torch.linspace(-2, 2, knots).repeat(before, 1))
        self.base = nn.Parameter(torch.randn(after, before) * 0.2)
        self.spline = nn.Parameter(torch.randn(after, before, knots) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, before) to (N, after)."""
        bases = torch.exp(-((x.unsqueeze(-1) - self.grid) ** 2))
        return F.linear(F.silu(x), self.base) + F.linear(bases.view(len(x), -1), self.spline.view(self.after, -1))
