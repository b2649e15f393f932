"""Broadcasts that forward writes out, and tables larger than what it reads, keep no channels from being cut."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from attention_nets import DIM, Tokens, tokens
from habits import FREE, between, case, linear
from nets import Net, conv, image, parameter
from torch import Tensor, nn

from autoprune.space.tracing.trace import trace
from autoprune.space.verification.verify import verify
from autoprune.testing.rules import Build, RuleCase, RuleContract, tried


def beside(step: Any, **parts: nn.Module | Tensor) -> RuleCase:
    """Maps of 16 channels and a mask of one, from the image; the step makes maps of them."""

    def forward(n: Any, x: Tensor) -> Tensor:
        y = step(n, n.a(x), x[:, :1].sigmoid())
        return n.fc(F.relu(n.b(y)).mean((2, 3)))  # type: ignore[no-any-return]

    own = {"a": conv(3, 16), "b": conv(16, 8), "fc": linear(8), **parts}
    return case(Net(forward, **own), FREE, {"g": "spreads one channel over all others"} if "g" in own else {})


def to_all(value: Tensor, y: Tensor) -> Tensor:
    return value.expand(-1, y.shape[1], -1, -1)


def table(step: Any, *shape: int, groups: int = DIM, buffer: bool = False) -> RuleCase:
    made = torch.randn(shape) if buffer else parameter(*shape)
    return RuleCase(Tokens(Net(step, pos=made)), tokens(), {"embed": groups})


CASES: dict[str, Build] = {
    "expand": lambda: beside(lambda n, y, m: y * to_all(m, y)),
    "expand of the batch, too": lambda: beside(lambda n, y, m: y * m[:1].expand(y.shape)),
    "repeat": lambda: beside(lambda n, y, m: y * m[:1].repeat(2, y.shape[1], 1, 1)),
    "repeat_interleave": lambda: beside(lambda n, y, m: y * m.repeat_interleave(y.shape[1], 1)),
    "broadcast_tensors": lambda: beside(lambda n, y, m: torch.mul(*torch.broadcast_tensors(y, m))),
    "one value beside itself": lambda: beside(lambda n, y, m: y * torch.cat([m] * y.shape[1], 1)),
    "one value on itself": lambda: beside(lambda n, y, m: y * torch.stack([m[:, 0]] * y.shape[1], 1)),
    "arithmetic on the copies": lambda: beside(lambda n, y, m: y * (1 - 2 * to_all(m, y)) + to_all(m, y)),
    "pooled copies": lambda: beside(lambda n, y, m: F.max_pool2d(y, 2) * F.max_pool2d(to_all(m, y), 2)),
    "choice by copies": lambda: beside(lambda n, y, m: torch.where(to_all(m > 0.5, y), y, y * 0.1)),
    "a baked number of copies": lambda: beside(lambda n, y, m: y * m.expand(-1, 16, -1, -1)),
    "a map of one channel": lambda: beside(lambda n, y, m: y * to_all(n.g(y), y).sigmoid(), g=conv(16, 1)),
    "a map of one channel, as another": lambda: beside(lambda n, y, m: y + n.g(y).expand_as(y), g=conv(16, 1)),
    "a number of the model": lambda: beside(
        lambda n, y, m: y * n.w.expand(1, y.shape[1], 1, 1), w=parameter(1, 1, 1, 1)
    ),
    "a map of the model": lambda: beside(lambda n, y, m: y * n.w.expand(2, y.shape[1], 6, 6), w=parameter(1, 1, 6, 6)),
    "one filter for all channels": lambda: beside(
        lambda n, y, m: F.conv2d(y, n.k.repeat(y.shape[1], 1, 1, 1), padding=1, groups=y.shape[1]),
        k=torch.randn(1, 1, 3, 3),
    ),
    "as many ones": lambda: beside(lambda n, y, m: y + torch.ones_like(y) * m),
    "sum by a product": lambda: beside(
        lambda n, y, m: y * torch.einsum("nchw,c->nhw", y, torch.ones(1).expand(y.shape[1])).unsqueeze(1)
    ),
    "a table longer than the example": lambda: table(lambda n, y: y + n.pos[:, : y.shape[1]], 1, 9, DIM),
    "a buffer, from the end": lambda: table(lambda n, y: y + n.pos[-y.shape[1] :], 9, DIM, buffer=True),
    "a table in another order": lambda: table(lambda n, y: y + n.pos[:, :5].t(), DIM, 9),
    "columns that nobody reads": lambda: table(lambda n, y: y + n.pos[:5, :DIM], 9, DIM + 3),
}


class TestBroadcasts(RuleContract):
    cases = CASES
    random_cuts = 2


OWN_CLASS = [name for name in CASES if name.partition(" ")[0] not in ("one", "columns") and "baked" not in name]


@pytest.mark.parametrize("name", [*OWN_CLASS, "one filter for all channels"])
def test_sizes_that_forward_takes_from_its_tensors_keep_the_own_class(name: str) -> None:
    assert tried(CASES[name]).space.form == "module"


def test_a_tensor_that_really_has_a_size_of_its_own_still_freezes_what_meets_it() -> None:
    model = between(lambda n, y: y * n.k, k=torch.rand(1, 1, 6, 1).expand(1, 16, 6, 1) * torch.rand(16, 1, 1))
    verified = verify(model, trace(model, image()))
    assert {g.name for g in verified.space.groups} == {"a", "b"}  # a buffer is cut with the channels it scales
    fixed = torch.rand(16, 1, 1)
    model = between(lambda n, y: y * fixed.expand(16, 6, 1).expand(2, 16, 6, 1))
    verified = verify(model, trace(model, image()))
    assert [g.name for g in verified.space.groups] == ["b"]
