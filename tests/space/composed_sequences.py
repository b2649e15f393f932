"""Parts of networks over sequences, as people write them: what enters, attention, gates, norms, heads.

Every choice is drawn from a `Draw`, which notes it by name, so that a failure says what it was made of.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH, ROWS, FEATURES, LONGEST = 16, 24, 6, 16

T = TypeVar("T")


class Draw:
    """Choices by chance, each noted."""

    def __init__(self, seed: int) -> None:
        self.rng, self.habits = random.Random(seed), list[str]()

    def one(self, what: str, names: Sequence[str]) -> str:
        """One of the names; noted together with what it is for."""
        name = self.rng.choice(names)
        self.habits.append(f"{what}: {name}")
        return name

    def perhaps(self, share: float) -> bool:
        return self.rng.random() < share


# --------------------------------------------------------------------------------------------------- what enters

BEFORE: dict[str, Callable[[Tensor], Tensor]] = {
    "as they are": lambda t: t,
    "long": lambda t: t.long(),
    "float and back": lambda t: (t.float() * 1.0).long(),
    "+ 1": lambda t: t + 1,
    "[:, :-1]": lambda t: t[:, :-1],
    "view": lambda t: t.view(t.shape[0], -1),
    "clamp": lambda t: t.clamp(0, ROWS - 1),
    "remainder": lambda t: (t + 3) % ROWS,
    "flip": lambda t: t.flip(1),
    "twice": lambda t: torch.cat([t, t], 1),
    "where": lambda t: torch.where(t > 2, t, t + 1),
    "shifted": lambda t: F.pad(t[:, :-1], (1, 0), value=1),
}
LOOKUPS = ("module", "module", "function", "index", "one_hot", "index_select", "gather", "matmul")


class Tokens(nn.Module):
    """Token numbers to vectors, behind an operator."""

    def __init__(self, draw: Draw, length: int, same: bool = False) -> None:
        super().__init__()
        names = [name for name in BEFORE if (length > 1 and not same) or name not in ("[:, :-1]", "twice")]
        self.before, self.lookup = draw.one("before", names), draw.one("lookup", LOOKUPS)
        if self.lookup == "module":
            self.table = nn.Embedding(ROWS, WIDTH)
        else:
            self.rows = nn.Parameter(torch.randn(ROWS, WIDTH))

    def forward(self, tokens: Tensor) -> Tensor:
        t = BEFORE[self.before](tokens).long() if self.before == "as they are" else BEFORE[self.before](tokens)
        if self.lookup == "module":
            return self.table(t)  # type: ignore[no-any-return]
        if self.lookup == "function":
            return F.embedding(t, self.rows)
        if self.lookup == "index":
            return self.rows[t]
        if self.lookup == "one_hot":
            return F.one_hot(t.long(), ROWS).float().to(self.rows.dtype) @ self.rows
        if self.lookup == "matmul":
            return (t.unsqueeze(-1) == torch.arange(ROWS)).to(self.rows.dtype).matmul(self.rows)
        if self.lookup == "gather":
            wide = self.rows.unsqueeze(0).expand(len(t), -1, -1)
            return wide.gather(1, t.long().unsqueeze(-1).expand(-1, -1, WIDTH))
        return self.rows.index_select(0, t.flatten()).view(*t.shape, -1)


class Positions(nn.Module):
    """A learned vector for every position, as many as there are or as many as there may be."""

    def __init__(self, draw: Draw, length: int) -> None:
        super().__init__()
        self.kind = draw.one("positions", ("sliced", "looked up", "baked", "buffer"))
        n = length if self.kind == "baked" else LONGEST * 2
        made = torch.randn(1, n, WIDTH) / 2
        if self.kind == "buffer":
            self.register_buffer("table", made, persistent=draw.perhaps(0.5))
        elif self.kind == "looked up":
            self.embedding = nn.Embedding(n, WIDTH)
        else:
            self.table = nn.Parameter(made if draw.perhaps(0.5) else torch.zeros_like(made))

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "looked up":
            return x + self.embedding(torch.arange(x.shape[1]))  # type: ignore[no-any-return]
        return x + (self.table if self.kind == "baked" else self.table[:, : x.shape[1]])


class Frames(nn.Module):
    """A small convolutional network for every frame of (n, t, 3, 6, 6)."""

    def __init__(self, draw: Draw) -> None:
        super().__init__()
        self.back = draw.one("frames back", ("view", "unflatten", "reshape width"))
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, WIDTH, 3)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        n, t = x.shape[:2]
        y = self.b(F.relu(self.norm(self.a(x.flatten(0, 1))))).mean((2, 3))
        if self.back == "view":
            return y.view(n, t, -1)  # type: ignore[no-any-return]
        return y.unflatten(0, (n, t)) if self.back == "unflatten" else y.reshape(n, t, WIDTH)  # type: ignore[no-any-return]


class Patches(nn.Module):
    """An image to a sequence of patches."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, WIDTH, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).flatten(2).transpose(1, 2)  # type: ignore[no-any-return]


# -------------------------------------------------------------------------------------------------- norms and gates


class Bare(nn.Module):
    """A layer norm without weights; `read_by` reads its result, for those who ask which channels are there."""

    def __init__(self, read_by: nn.Module, functional: bool) -> None:
        super().__init__()
        self.read_by = [read_by]
        self.norm = None if functional else nn.LayerNorm(WIDTH, elementwise_affine=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x) if self.norm is not None else F.layer_norm(x, x.shape[-1:])  # type: ignore[no-any-return]


class Turned(nn.Module):
    """A norm of channels that stand before positions, applied to a sequence."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.transpose(1, 2)).transpose(1, 2)  # type: ignore[no-any-return]


def a_sequence_norm(draw: Draw, reader: nn.Module | None) -> nn.Module:
    """A norm of a sequence; `reader` reads its result with its columns."""
    names = ["layer", "layer", "rms", "none", "batch", "group"] + ["bare", "functional"] * (reader is not None)
    name = draw.one("norm", names)
    if reader is not None and name in ("bare", "functional"):
        return Bare(reader, name == "functional")
    if name in ("batch", "group"):
        return Turned(nn.BatchNorm1d(WIDTH) if name == "batch" else nn.GroupNorm(4, WIDTH))
    return {"layer": nn.LayerNorm, "rms": nn.RMSNorm}.get(name, nn.Identity)(WIDTH)


GATES = (
    "none", "none", "none", "zeros(1)", "ones(1)", "zero", "one", "zeros(width)", "layer scale", "float 0.0",
    "float 1.0", "tanh of zero", "sigmoid", "buffer of zero", "zeros(1, 1, 1)", "difference", "two branches",
)  # fmt: skip


class Gate(nn.Module):
    """What a branch is multiplied with before it is added."""

    def __init__(self, draw: Draw, channels: tuple[int, ...] = (WIDTH,)) -> None:
        super().__init__()
        self.kind = draw.one("gate", GATES)
        made: dict[str, Tensor] = {
            "zeros(1)": torch.zeros(1),
            "ones(1)": torch.ones(1),
            "zero": torch.tensor(0.0),
            "one": torch.tensor(1.0),
            "zeros(width)": torch.zeros(channels),
            "layer scale": 1e-5 * torch.ones(channels),
            "tanh of zero": torch.zeros(1),
            "sigmoid": torch.full((1,), -9.0),
            "zeros(1, 1, 1)": torch.zeros([1] * max(3, len(channels) + 1)),
            "difference": torch.ones(2),
            "two branches": torch.tensor([9.0, -9.0]),
        }
        if self.kind.startswith("float"):
            self.gate: Any = float(self.kind[-3:])
        elif self.kind == "buffer of zero":
            self.register_buffer("gate", torch.zeros(1))
        elif self.kind != "none":
            self.gate = nn.Parameter(made[self.kind])

    def forward(self, x: Tensor, branch: Tensor) -> Tensor:
        if self.kind == "none":
            return x + branch
        if self.kind == "tanh of zero":
            return x + torch.tanh(self.gate) * branch
        if self.kind == "sigmoid":
            return x + torch.sigmoid(self.gate) * branch
        if self.kind == "difference":
            return x + (self.gate[0] - self.gate[1]) * branch  # type: ignore[no-any-return]
        if self.kind == "two branches":
            one, other = self.gate.softmax(0)
            return one * x + other * branch  # type: ignore[no-any-return]
        return x + self.gate * branch  # type: ignore[no-any-return]


# ------------------------------------------------------------------------------------------------------- attention

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
            self.q_norm, self.k_norm = (
                (nn.LayerNorm if draw.perhaps(0.5) else nn.RMSNorm)(self.dim) for _ in range(2)
            )
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
