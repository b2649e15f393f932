"""Whole networks put together by chance, the examples they are traced with, and what training makes of them.

Examples hide what they can: equal tokens, repeated frames, zeros, one token. `Case.inputs` hide nothing.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, TypeAlias, final

import torch
from composed_attention import Attention
from composed_images import SIDE, ImageNet
from composed_parts import Block
from composed_sequences import FEATURES, ROWS, WIDTH, Draw, Frames, Gate, Patches, Positions, Tokens
from torch import Tensor, nn

Inputs: TypeAlias = tuple[Tensor, ...]

KINDS = (
    "tokens",
    "tokens",
    "tokens",
    "floats",
    "floats",
    "frames",
    "patches",
    "image",
    "image",
    "tokens and mask",
    "two sequences",
)
EXAMPLES = (
    "random",
    "random",
    "zeros",
    "constant",
    "repeated",
    "equal rows",
    "one element",
    "one element",
    "batch of one",
)


class Masked(nn.Module):
    """Tokens, those that a mask leaves out as zeros."""

    def __init__(self, draw: Draw, length: int) -> None:
        super().__init__()
        self.tokens = Tokens(draw, length, same=True)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return self.tokens(tokens) * mask.unsqueeze(-1)  # type: ignore[no-any-return]


class Cross(nn.Module):
    """A sequence that looks at another one."""

    def __init__(self, draw: Draw) -> None:
        super().__init__()
        self.embed, self.attention, self.gate = nn.Linear(FEATURES, WIDTH), Attention(draw, FEATURES), Gate(draw)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        y = self.embed(x)
        return self.gate(y, self.attention(y, context))  # type: ignore[no-any-return]


class SequenceNet(nn.Module):
    """An entry, blocks, a head."""

    def __init__(self, draw: Draw, kind: str, length: int) -> None:
        super().__init__()
        entries: dict[str, Any] = {
            "tokens": lambda: Tokens(draw, length),
            "floats": lambda: nn.Linear(FEATURES, WIDTH),
            "frames": lambda: Frames(draw),
            "patches": Patches,
            "tokens and mask": lambda: Masked(draw, length),
            "two sequences": lambda: Cross(draw),
        }
        self.entry = entries[kind]()
        changes = getattr(self.entry, "before", "")
        inside = {"[:, :-1]": length - 1, "twice": 2 * length}.get(changes, 9 if kind == "patches" else length)
        self.positions = Positions(draw, inside) if draw.perhaps(0.35) else nn.Identity()
        kinds = ["attention"] * 4 + ["torch", "mlp", "mlp", "mixing", "recurrent"]
        self.blocks = nn.ModuleList(Block(draw, draw.rng.choice(kinds)) for _ in range(draw.rng.choice([1, 2, 2])))
        self.end = draw.one("end", ("each", "mean", "last", "most", "flatten", "baked"))
        self.long = inside * WIDTH
        self.head = nn.Linear(self.long if self.end in ("flatten", "baked") else WIDTH, 5)

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        x = self.positions(self.entry(x) if other is None else self.entry(x, other))
        for block in self.blocks:
            x = block(x)
        if self.end == "baked":
            x = x.reshape(-1, self.long)
        elif self.end != "each":
            x = {"mean": x.mean(1), "last": x[:, -1], "most": x.amax(1), "flatten": x.flatten(1)}[self.end]
        return self.head(x)  # type: ignore[no-any-return]


@final
@dataclass(frozen=True, eq=False)
class Case:
    """A network and what it is tried with.

    Attributes:
        model: as it was made; only read.
        example: what it is traced with.
        trained: the model with opened gates and loud weights, as after training.
        inputs: real inputs, of the example's shape.
        others: real inputs of another length that the model takes.
        options: of the space.
        habits: what was drawn.
    """

    model: nn.Module
    example: Inputs
    trained: nn.Module
    inputs: tuple[Inputs, ...]
    others: tuple[Inputs, ...]
    options: dict[str, str]
    habits: tuple[str, ...]


def composed(seed: int) -> Case:
    """The network of this seed."""
    draw = Draw(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        kind = draw.one("input", KINDS)
        example_kind = draw.one("example", EXAMPLES)
        one = example_kind == "one element"
        length, batch = (1 if one else draw.rng.choice([4, 6])), (1 if example_kind == "batch of one" or one else 2)
        model: nn.Module = ImageNet(draw) if kind == "image" else SequenceNet(draw, kind, length)
        model.eval()
        inputs = tuple(real(kind, batch, length) for _ in range(2))
        candidates = [real(kind, 3, length)] + ([] if kind in ("image", "patches") else [real(kind, 2, 7)])
        others = tuple(x for x in candidates if _takes(model, x))
        example = tuple(shown(x, example_kind) for x in real(kind, batch, length))
        options = {"attention": "head_dim"} if draw.perhaps(0.12) else {}
        draw.habits += ["cut inside heads"] * bool(options)
        return Case(model, example, trained(model), inputs, others, options, tuple(draw.habits))


def real(kind: str, batch: int, length: int) -> Inputs:
    """Inputs as they are met in use."""
    if kind in ("tokens", "tokens and mask"):
        mask = torch.rand(batch, length) < 0.7
        mask[:, 0] = True
        return torch.randint(0, ROWS - 4, (batch, length)), *([mask] if kind == "tokens and mask" else [])
    shapes = {
        "floats": [(batch, length, FEATURES)],
        "two sequences": [(batch, length, FEATURES), (batch, length, FEATURES)],
        "frames": [(batch, length, 3, SIDE, SIDE)],
    }
    return tuple(torch.randn(shape) for shape in shapes.get(kind, [(batch, 3, SIDE, SIDE)]))


def shown(x: Tensor, kind: str) -> Tensor:
    """An input that people trace with: it has the shape and not the variety of a real one."""
    if kind == "zeros":
        return torch.zeros_like(x)
    if kind == "constant":
        return torch.ones_like(x)
    if kind == "repeated":
        return x[:, :1].expand_as(x).clone()
    return x[:1].expand_as(x).clone() if kind == "equal rows" else x


def trained(model: nn.Module) -> nn.Module:
    """A copy as after training: gates are open, attention looks at something, norms and biases are of all sizes."""
    clone = copy.deepcopy(model)
    with torch.no_grad():
        for name, tensor in (*clone.named_parameters(), *clone.named_buffers()):
            if tensor.is_floating_point():
                _train(name, tensor)
        for module in clone.modules():
            if isinstance(module, Gate) and module.kind.startswith("float"):
                module.gate = 1.0
            elif isinstance(module, Gate) and module.kind == "difference":
                module.gate[1] = -0.2
    return clone


def _train(name: str, tensor: Tensor) -> None:
    path, _, own = name.rpartition(".")
    if own in ("seen", "level"):  # counted in training, from one
        return
    equal = bool((tensor == tensor.flatten()[0]).all())
    if own == "gate" or tensor.numel() == 1:
        tensor.uniform_(0.7, 1.3)
    elif own == "running_var" or (tensor.ndim == 1 and equal and bool(tensor.any())):
        tensor.uniform_(0.5, 1.5)
    elif tensor.ndim == 1:
        tensor.add_(0.3 * torch.randn(tensor.shape))
    elif equal:
        tensor.normal_(0, tensor[0].numel() ** -0.5)
    elif {"q", "k", "qkv", "attention"} & set(path.split(".")[-1:]):
        tensor.mul_(4)


def _takes(model: nn.Module, inputs: Inputs) -> bool:
    try:
        with torch.no_grad():
            model(*inputs)
    except (RuntimeError, IndexError, ValueError):
        return False
    return True
