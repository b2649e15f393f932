"""Examples and branches that say nothing hide no wrong cut: each of these models computes something else when cut."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import autoprune
from autoprune.errors import AutopruneError, SpaceError
from autoprune.space.tracing.program import Example, record
from autoprune.space.verification.scramble import scrambled
from autoprune.space.verification.telling import telling


class Attention(nn.Module):
    """Splits into heads by an attribute that nobody adapts, so that a cut in this class computes something else."""

    def __init__(self, gate: Any = 1.0, split: str = "view") -> None:
        super().__init__()
        self.parts, self.gate, self.split = 4, gate, split
        self.q, self.k, self.v, self.p = (nn.Linear(32, 32) for _ in range(4))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        n, length, _ = x.shape

        def heads(y: Tensor) -> Tensor:
            if self.split == "unflatten":
                return y.unflatten(-1, (self.parts, -1)).transpose(1, 2)
            return y.view(n, length, self.parts, -1).transpose(1, 2)

        q, k, v = (heads(f(x)) for f in (self.q, self.k, self.v))
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        if mask is not None:
            scores = scores.masked_fill(mask[:, None, None] == 0, -1e9)
        attended = (scores.softmax(-1) @ v).transpose(1, 2).reshape(n, length, -1)
        return x + self.gate * self.p(attended)  # type: ignore[no-any-return]


class Tagger(nn.Module):
    def __init__(self, look: Callable[[nn.Embedding, Tensor], Tensor]) -> None:
        super().__init__()
        self.look, self.table, self.attention, self.out = look, nn.Embedding(40, 32), Attention(), nn.Linear(32, 7)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.out(self.attention(self.look(self.table, tokens), mask))  # type: ignore[no-any-return]


class Features(nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.embed, self.attention, self.out = nn.Linear(12, 32), Attention(**options), nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.attention(self.embed(x)))  # type: ignore[no-any-return]


class Video(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.attention, self.out = nn.Conv2d(3, 32, 3), Attention(), nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        frames = F.relu(self.conv(x.flatten(0, 1))).mean((2, 3)).view(*x.shape[:2], -1)
        return self.out(self.attention(frames).mean(1))  # type: ignore[no-any-return]


LOOKS: dict[str, Callable[[nn.Embedding, Tensor], Tensor]] = {
    "as it is": lambda table, t: table(t),
    "as another view": lambda table, t: table(t.view(1, -1)),
    "plus one": lambda table, t: table(t + 1),
    "minus one": lambda table, t: table((t - 1).clamp(0)),
    "without the last": lambda table, t: table(t[:, :-1]),
    "gathered": lambda table, t: table(t.gather(1, torch.arange(8)[None])),
    "of another type": lambda table, t: table(t.int().long()),
    "by index": lambda table, t: table.weight[t],
    "by index_select": lambda table, t: table.weight.index_select(0, t.flatten()).view(*t.shape, -1),
    "by one_hot": lambda table, t: F.one_hot(t, 40).float() @ table.weight,
    "by bucket": lambda table, t: table(torch.bucketize(t.float(), torch.arange(0.0, 30.0))),
}


def zeros(*shape: int) -> Tensor:
    return torch.zeros(*shape, dtype=torch.int64)


def form_of(model: nn.Module, example: Example) -> str:
    return autoprune.trace(model, example).search_space.form


def right(space: autoprune.Space, model: nn.Module, x: Tensor) -> bool:
    """Whether cutting half of everything leaves what the masked model computes.

    The oracle asks the cut network which entries of each tensor it kept, and silences the others in a copy.
    """
    attention = model.attention
    assert isinstance(attention, Attention)
    with torch.no_grad():
        for layer in (attention.q, attention.k):
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


def looks_at_equal_tokens() -> list[Any]:
    """Each way to look at zeros or at sevens, in turn; the other half is slow."""
    return [
        pytest.param(
            look, zeros(1, 9) + token, id=f"{name}-{token}", marks=[] if number % 2 == place else [pytest.mark.slow]
        )
        for number, (name, look) in enumerate(LOOKS.items())
        for place, token in enumerate((0, 7))
    ]


@pytest.mark.parametrize(("look", "example"), looks_at_equal_tokens())
def test_equal_tokens_do_not_hide_attention(look: Callable[[nn.Embedding, Tensor], Tensor], example: Tensor) -> None:
    torch.manual_seed(0)
    model = Tagger(look)
    space = autoprune.trace(model, example)
    assert space.search_space.form == "graph"
    assert right(space, model, torch.randint(0, 39, (1, 9)))


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_equal_tokens_are_replaced_by_rows_of_their_table(look: Callable[[nn.Embedding, Tensor], Tensor]) -> None:
    model, example = Tagger(look), zeros(1, 9)
    tokens = telling(scrambled(model, seed=0), record(model, example), example, 1e-4)
    assert isinstance(tokens, Tensor)
    assert len(tokens.unique()) > 4
    assert look(model.table, tokens).unique(dim=1).shape[1] > 2


@pytest.mark.parametrize("mask", [torch.ones(1, 9), torch.zeros(1, 9), zeros(1, 9) + 1, zeros(1, 9)])
def test_a_mask_that_hides_nothing_or_everything_does_not_hide_attention(mask: Tensor) -> None:
    model = Tagger(lambda table, t: table(t))
    assert form_of(model, (zeros(1, 9), mask)) == "graph"
    tokens, other = telling(scrambled(model, seed=0), record(model, (zeros(1, 9), mask)), (zeros(1, 9), mask), 1e-4)
    assert len(tokens.unique()) > 4
    assert bool((other != 0).sum() > 1)  # somebody is attended to


@pytest.mark.parametrize(
    "example",
    [torch.zeros(2, 9, 12), torch.ones(1, 9, 12), torch.randn(2, 1, 12).repeat(1, 9, 1), torch.randn(1, 1, 12)],
    ids=["silence", "ones", "equal rows", "one row"],
)
@pytest.mark.parametrize("split", ["view", "unflatten"])
def test_rows_that_are_equal_or_alone_do_not_hide_attention(example: Tensor, split: str) -> None:
    torch.manual_seed(0)
    model = Features(split=split)
    space = autoprune.trace(model, example)
    assert space.search_space.form == "graph"
    assert right(space, model, torch.randn(example.shape))


@pytest.mark.parametrize("example", [torch.randn(1, 1, 3, 6, 6).repeat(1, 4, 1, 1, 1), torch.randn(1, 1, 3, 6, 6)])
def test_frames_that_are_equal_or_alone_do_not_hide_attention(example: Tensor) -> None:
    torch.manual_seed(0)
    model = Video()
    space = autoprune.trace(model, example)
    assert space.search_space.form == "graph"
    assert right(space, model, torch.randn(example.shape))


@pytest.mark.parametrize(
    "start", [torch.zeros(1), torch.tensor(0.0), torch.zeros(32), torch.full((32,), 1e-6), 0.0], ids=str
)
def test_a_gate_that_starts_closed_does_not_hide_its_branch(start: Any) -> None:
    torch.manual_seed(0)
    model = Features(gate=nn.Parameter(start.clone()) if isinstance(start, Tensor) else start)
    space = autoprune.trace(model, torch.randn(2, 9, 12))
    if isinstance(start, Tensor):
        assert space.search_space.form == "graph"
        with torch.no_grad():
            model.attention.gate.fill_(1.0)
    else:
        model.attention.gate = 1.0
    assert right(space, model, torch.randn(2, 9, 12))


@pytest.mark.parametrize("gate", [0.0, torch.zeros(1)], ids=["a number", "a tensor"])
def test_a_constant_gate_that_its_owner_may_open_keeps_the_class_and_what_is_behind_it(gate: Any) -> None:
    """In the graph it would stay closed for good."""
    model = Features(gate=gate)
    space = autoprune.trace(model, torch.randn(2, 9, 12))
    assert space.search_space.form == "module"
    assert {part.name for part in space.search_space.frozen} >= {"attention.q", "attention.v"}
    assert [group.name for group in space.groups] == ["embed"]


class WholeHeads(Attention):
    """Splits so that heads can be left out: the size of a head is written down, not their number."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        n, length, _ = x.shape
        q, k, v = (f(x).view(n, length, -1, 8).transpose(1, 2) for f in (self.q, self.k, self.v))
        attended = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1) @ v
        return self.p(attended.transpose(1, 2).reshape(n, length, -1))  # type: ignore[no-any-return]


def test_whole_heads_stay_in_the_class_of_the_model() -> None:
    """Where a head split is written so that it can be cut, nothing drives the model out of its own class."""
    torch.manual_seed(0)
    model = Features()
    model.attention = WholeHeads()
    space = autoprune.trace(model, torch.zeros(1, 9, 12))
    assert space.search_space.form == "module"
    assert {group.kind for group in space.groups} >= {"heads"}
    assert right(space, model, torch.randn(2, 9, 12))


class Baked(nn.Module):
    """Can only be cut as a graph, which would keep the gate closed, as it is a number."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.a, self.b, self.c = 0.0, nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 1), nn.Linear(576, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        return self.c((y + self.gate * self.b(y)).view(-1, 576))  # type: ignore[no-any-return]


def test_a_constant_zero_is_not_baked_into_a_graph() -> None:
    with pytest.raises(SpaceError):
        autoprune.trace(Baked(), torch.randn(2, 3, 8, 8))


class Fused(Attention):
    """Fused attention scales by the width of a head: cut inside heads, it can only be a graph."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        q, k, v = (f(x).unflatten(-1, (self.parts, -1)).transpose(1, 2) for f in (self.q, self.k, self.v))
        return x + self.gate * self.p(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


def test_what_only_a_graph_could_cut_behind_a_gate_that_is_zero_is_frozen_alone() -> None:
    spaces = []
    for gate in (0.0, 0.1):
        model = Features()
        model.attention = Fused(gate)
        spaces.append(autoprune.trace(model, torch.randn(2, 9, 12), options={"attention": "head_dim"}))
    closed, ajar = spaces
    assert (closed.search_space.form, ajar.search_space.form) == ("module", "graph")
    assert len(closed.groups) < len(ajar.groups)


class ClosedBranch(nn.Module):
    """Attention that only the graph form can cut inside heads, behind a number that its owner may change."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.out = nn.Linear(12, 16), nn.Linear(16, 5)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.embed(x)
        return self.out(y.relu() + 0.0 * self.attention(y, y, y, need_weights=False)[0])  # type: ignore[no-any-return]


def test_a_closed_branch_that_only_a_graph_can_cut_stays_whole() -> None:
    with pytest.raises(AutopruneError, match="nothing in this model can be pruned"):
        autoprune.trace(ClosedBranch(), torch.randn(2, 9, 12), options={"attention": "head_dim"})


def test_inside_a_closed_branch_the_wrong_value_is_told() -> None:
    space = autoprune.trace(Features(gate=0.0), torch.randn(2, 9, 12)).search_space
    told = next(part.reason for part in space.frozen if part.name == "attention.q")
    assert told.startswith("inside the cut network, view in")
    assert "are left" in told


class Gated(nn.Module):
    """Asks whether its gate is open."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Linear(6, 16), nn.Linear(16, 16), nn.Linear(16, 3)
        self.gate = nn.Buffer(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x).relu()
        return self.out(y + self.b(y) if self.gate.item() else y)  # type: ignore[no-any-return]


def test_a_model_that_asks_for_its_gate_is_still_verified() -> None:
    space = autoprune.trace(Gated(), torch.randn(2, 6))
    assert [group.name for group in space.groups] == ["a"]


class Mixing(nn.Module):
    """Moves channels across tokens, where the right one only swaps the two."""

    def __init__(self, *, right: bool) -> None:
        super().__init__()
        self.right, self.a, self.b, self.out = right, nn.Linear(12, 32), nn.Linear(32, 16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x).relu()
        n, length, channels = y.shape
        y = y.transpose(1, 2) if self.right else y.reshape(n, channels, length)
        return self.out(self.b(y.transpose(1, 2)).mean(1))  # type: ignore[no-any-return]


class MixingBatch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Linear(12, 32), nn.Linear(32, 16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x).relu()
        return self.out(self.b(y.reshape(y.shape[1], y.shape[0]).t()))  # type: ignore[no-any-return]


def test_an_axis_of_length_one_is_tried_longer() -> None:
    assert form_of(Mixing(right=True), torch.randn(2, 1, 12)) == "module"
    assert form_of(Mixing(right=False), torch.randn(2, 1, 12)) == "graph"
    assert form_of(MixingBatch(), torch.randn(1, 12)) == "graph"


def test_scrambling_leaves_no_two_rows_alike() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Embedding(5, 3))
    with torch.no_grad():
        model[0].weight[2:4] = model[0].weight[1].clone()
        model[2].weight[:] = model[2].weight[0].clone()
    made = scrambled(model, seed=0)
    for tensor in made.parameters():
        assert len(tensor.unique(dim=0)) == len(tensor)


def test_scrambling_opens_a_gate_of_one_element() -> None:
    for start in (0.0, 1e-6, -20.0):
        for shape in ((), (1,)):
            gate = scrambled(Attention(nn.Parameter(torch.full(shape, start))), seed=0).gate
            assert 0.1 <= float(gate) <= 1.5  # type: ignore[arg-type]
