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
