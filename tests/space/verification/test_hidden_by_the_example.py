"""Cuts that compute something else, hidden by the example or by a branch that is silent when the model is traced."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import autoprune
from autoprune.errors import SpaceError

DIM, PARTS = 32, 4


class Attention(nn.Module):
    """Splits into heads by an attribute that nobody adapts: cut in its own class, heads mix."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.parts = PARTS
        self.embed: nn.Module = nn.Linear(inputs, DIM)
        self.out = nn.Linear(DIM, 5)
        self.q, self.k, self.v, self.p = (nn.Linear(DIM, DIM) for _ in range(4))

    def mixed(self, x: Tensor) -> Tensor:
        n, length, _ = x.shape
        q, k, v = (f(x).view(n, length, self.parts, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
        attended = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1) @ v
        return self.p(attended.transpose(1, 2).reshape(n, length, -1))  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.mixed(self.embed(x)))  # type: ignore[no-any-return]


class Tokens(Attention):
    def __init__(self, before: Callable[[Tensor], Tensor]) -> None:
        super().__init__(12)
        self.before, self.embed = before, nn.Embedding(50, DIM)

    def forward(self, tokens: Tensor) -> Tensor:
        return super().forward(self.before(tokens))


class Gated(Attention):
    def __init__(self, gate: Any) -> None:
        super().__init__(12)
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        return self.out(x + self.gate * self.mixed(x))  # type: ignore[no-any-return]


class Frames(Attention):
    """Attention over the frames of a clip."""

    def forward(self, clip: Tensor) -> Tensor:
        return super().forward(clip.mean((-2, -1)))


def right(space: autoprune.Space, model: Attention, x: Tensor) -> bool:
    """Whether cutting one whole head of the values, or of everything, leaves what the masked model computes.

    The oracle asks the cut network which entries of each tensor it kept, and silences the others in a copy.
    """
    with torch.no_grad():
        for layer in (model.q, model.k):
            layer.weight.mul_(6)  # as after training: attention looks at something
    numbered, silenced = copy.deepcopy(model).double(), copy.deepcopy(model)
    with torch.no_grad():
        for tensor in numbered.parameters():
            tensor.copy_(torch.arange(tensor.numel()).reshape(tensor.shape))
    widths = space.uniform(0.5)
    kept = dict(space.slice(numbered, widths, criterion="random", seed=0).named_parameters())
    with torch.no_grad():
        for name, tensor in silenced.named_parameters():
            stays = torch.zeros(tensor.numel(), dtype=torch.bool)
            stays[kept[name].flatten().long()] = True
            tensor[~stays.reshape(tensor.shape)] = 0
        found = space.slice(model, widths, criterion="random", seed=0).eval()(x)
        expected = silenced.eval()(x)
    return float((found - expected).abs().max() / expected.abs().max()) < 1e-4


BEFORE: dict[str, Callable[[Tensor], Tensor]] = {
    "itself": lambda t: t,
    "long": lambda t: t.int().long(),
    "plus one": lambda t: t + 1,
    "all but the last": lambda t: t[:, :-1],
    "view": lambda t: t.view(1, -1),
    "clamp": lambda t: t.clamp(max=40),
    "gathered": lambda t: t.gather(1, torch.arange(15)[None]),
}


@pytest.mark.parametrize("before", BEFORE.values(), ids=BEFORE)
@pytest.mark.parametrize("example", [torch.zeros(1, 16, dtype=torch.long), torch.full((1, 16), 7)], ids=["0", "7"])
def test_equal_tokens_hide_nothing(before: Callable[[Tensor], Tensor], example: Tensor) -> None:
    torch.manual_seed(0)
    model = Tokens(before)
    space = autoprune.trace(model, example)
    assert right(space, model, torch.randint(0, 40, (1, 16)))


GATES: dict[str, Callable[[], Any]] = {
    "one element": lambda: nn.Parameter(torch.zeros(1)),
    "scalar": lambda: nn.Parameter(torch.tensor(0.0)),
    "number": lambda: 0.0,
    "vector": lambda: nn.Parameter(torch.zeros(DIM)),
    "tiny scale": lambda: nn.Parameter(torch.full((DIM,), 1e-6)),
}


@pytest.mark.parametrize("gate", GATES.values(), ids=GATES)
def test_a_closed_gate_hides_nothing(gate: Callable[[], Any]) -> None:
    torch.manual_seed(0)
    model = Gated(gate())
    space = autoprune.trace(model, torch.randn(2, 9, 12))
    if isinstance(model.gate, float):
        model.gate = 1.0
    else:
        with torch.no_grad():
            model.gate.fill_(1.0)
    assert right(space, model, torch.randn(2, 9, 12))


EXAMPLES = {
    "one token": (Attention, torch.randn(1, 1, 12), torch.randn(1, 9, 12)),
    "equal tokens": (Attention, torch.ones(1, 9, 12), torch.randn(1, 9, 12)),
    "silence": (Attention, torch.zeros(1, 9, 12), torch.randn(1, 9, 12)),
    "one frame": (Frames, torch.randn(1, 1, 12, 4, 4), torch.randn(1, 6, 12, 4, 4)),
    "a frame repeated": (Frames, torch.randn(1, 1, 12, 4, 4).expand(1, 6, 12, 4, 4), torch.randn(1, 6, 12, 4, 4)),
}


@pytest.mark.parametrize(("kind", "example", "real"), EXAMPLES.values(), ids=EXAMPLES)
def test_repeats_and_axes_of_one_hide_nothing(kind: type[Attention], example: Tensor, real: Tensor) -> None:
    """What only a longer input shows is tried with one; a graph holds on to the length of its example."""
    torch.manual_seed(0)
    model = kind(12)
    space = autoprune.trace(model, example)
    assert right(space, model, real if space.search_space.form == "module" else torch.randn(example.shape))


def test_whole_heads_stay_in_the_class_of_the_model() -> None:
    """Where a head split is written so that it can be cut, nothing drives the model out of its own class."""

    class HeadDim(Attention):
        def mixed(self, x: Tensor) -> Tensor:
            n, length, _ = x.shape
            q, k, v = (f(x).view(n, length, -1, DIM // PARTS).transpose(1, 2) for f in (self.q, self.k, self.v))
            attended = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1) @ v
            return self.p(attended.transpose(1, 2).reshape(n, length, -1))  # type: ignore[no-any-return]

    torch.manual_seed(0)
    model = HeadDim(12)
    space = autoprune.trace(model, torch.zeros(1, 9, 12))
    assert space.search_space.form == "module"
    assert {group.kind for group in space.groups} >= {"heads"}
    assert right(space, model, torch.randn(2, 9, 12))


def test_a_constant_zero_is_not_baked_into_a_graph() -> None:
    """A model that can only be cut as a graph, with a gate that is a number: the graph would keep it closed."""

    class Baked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate, self.a, self.b, self.c = 0.0, nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 1), nn.Linear(576, 5)

        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x)
            return self.c((y + self.gate * self.b(y)).view(-1, 576))  # type: ignore[no-any-return]

    with pytest.raises(SpaceError):
        autoprune.trace(Baked(), torch.randn(2, 3, 8, 8))


class Fused(Gated):
    """Fused attention scales by the width of a head: cut inside heads, it can only be a graph."""

    def mixed(self, x: Tensor) -> Tensor:
        q, k, v = (f(x).unflatten(-1, (PARTS, -1)).transpose(1, 2) for f in (self.q, self.k, self.v))
        attended = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.p(attended.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


def test_a_gate_that_is_a_number_of_zero_keeps_the_own_class() -> None:
    """What only a graph could cut is frozen then."""
    closed, ajar = (
        autoprune.trace(Fused(gate), torch.randn(2, 9, 12), options={"attention": "head_dim"}) for gate in (0.0, 0.1)
    )
    assert (closed.search_space.form, ajar.search_space.form) == ("module", "graph")
    assert len(closed.groups) < len(ajar.groups)
