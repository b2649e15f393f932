"""Products in which nothing can be cut are part of what a network costs."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from fvcore.nn import FlopCountAnalysis
from torch import Tensor, nn

from autoprune.space.tracing.calls import Call
from autoprune.space.tracing.rules.whole_products import whole_product
from autoprune.space.tracing.trace import trace
from autoprune.space.verification.verify import verify


class States(nn.Module):
    """A matrix of two kinds of channels, which a convolution and a product then read."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.states = nn.Conv1d(3, 6, 1), nn.Conv1d(6, 4, 1)
        self.inside, self.after = nn.Conv1d(6, 12, 1), nn.Conv1d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map sequences (N, 3, T) to (N, 2, T)."""
        x = self.before(x)
        states = self.states(x)
        value, gate = self.inside(x @ states.softmax(2).transpose(1, 2)).chunk(2, 1)
        made: Tensor = self.after((value * gate.sigmoid()) @ states)
        return made


class Lambdas(nn.Module):
    """A product of keys and values whose result is applied to queries as if it were a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = nn.Linear(12, 8), nn.Linear(12, 4), nn.Linear(12, 6), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (N, T, 12) to (N, T, 5)."""
        n, t, _ = x.shape
        content = self.k(x).softmax(1).transpose(1, 2) @ self.v(x)
        applied = self.q(x).reshape(n, t, 2, 4).transpose(1, 2) @ content.unsqueeze(1)
        made: Tensor = self.out(applied.transpose(1, 2).reshape(n, t, 12))
        return made


@pytest.mark.parametrize(("network", "shape"), [(States(), (1, 3, 7)), (Lambdas(), (1, 7, 12))])
def test_all_products_of_the_full_network_are_counted(network: nn.Module, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape)
    space = trace(network, x).space
    seen = [op for op in space.operations if op.kind not in ("unseen", "uncounted")]
    ours = sum(op.coefficient * math.prod(size(space.full) for size in op.sizes) for op in seen)
    counted = FlopCountAnalysis(network, (x,)).unsupported_ops_warnings(False)
    assert ours == sum(counted.by_operator()[name] for name in ("conv", "linear", "matmul", "bmm", "addmm"))


def test_what_reads_a_matrix_of_channels_reads_one_kind_of_them_and_writes_others() -> None:
    network, x = States(), torch.randn(1, 3, 7)
    verified = verify(network, trace(network, x))
    assert {group.name for group in verified.space.groups} == {"before", "inside"}
    assert [part.name for part in verified.space.frozen] == ["states", "after"]


def test_a_matrix_of_channels_is_broadcast_over_heads() -> None:
    space = trace(Lambdas(), torch.randn(1, 7, 12)).space
    assert not [part for part in space.frozen if "does not know" in part.reason]


def call(function: Any, name: str, **arguments: Any) -> Call:
    made = function(**arguments)
    return Call(None, name, arguments, made, "", "", arguments)


def products(made: tuple[str, int] | None) -> int:
    assert made is not None
    return made[1]


def test_what_products_cost_is_what_counting_by_hand_gives() -> None:
    x, w = torch.randn(2, 6, 9), torch.randn(4, 3, 5)
    assert products(whole_product(call(F.conv1d, "conv1d", input=x, weight=w, groups=2))) == 2 * 4 * 5 * 3 * 5
    turned = torch.randn(6, 4, 3)
    assert (
        products(whole_product(call(F.conv_transpose1d, "conv_transpose1d", input=x, weight=turned)))
        == 2 * 6 * 9 * 4 * 3
    )
    a, b = torch.randn(3, 4, 5), torch.randn(3, 5, 6)
    assert products(whole_product(call(torch.bmm, "bmm", input=a, mat2=b))) == 3 * 4 * 5 * 6
    assert whole_product(call(torch.matmul, "matmul", input=a, other=torch.randn(5))) == ("uncounted", 3 * 4 * 5)
    added = call(torch.baddbmm, "baddbmm", input=torch.randn(3, 4, 6), batch1=a, batch2=b)
    assert whole_product(added) == ("unseen", 3 * 4 * 5 * 6)
    summed = Call(None, "einsum", {"equation": "nab, nbc -> nc"}, torch.randn(3, 6), "", "", {"tensors": [a, b]})
    assert whole_product(summed) == ("unseen", 3 * 4 * 5 * 6)
    q, k, v = torch.randn(2, 3, 7, 4), torch.randn(2, 3, 8, 4), torch.randn(2, 3, 8, 5)
    fused = call(F.scaled_dot_product_attention, "scaled_dot_product_attention", query=q, key=k, value=v)
    assert whole_product(fused) == ("unseen", 2 * 3 * 7 * 8 * (4 + 5))
    assert (
        products(whole_product(call(F.linear, "linear", input=torch.randn(2, 7, 5), weight=torch.randn(4, 5))))
        == 2 * 7 * 5 * 4
    )
    assert whole_product(call(torch.relu, "relu", input=x)) is None
