"""An operator made up here, supported by one row: labels, sizes and statistic."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import EntryPoint, EntryPoints
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from nets import Net, classify, conv, image
from torch import Tensor, nn

from autoprune import registry
from autoprune.errors import RegistryError
from autoprune.space.cutting.slicing import random_ranking, slice_model
from autoprune.space.tracing.resize import Arguments, Sized
from autoprune.space.tracing.rules import RULES, OperatorRule, offered_rules, rule_of
from autoprune.space.tracing.rules.base import always, unknown
from autoprune.space.tracing.rules.norms import along_dim
from autoprune.space.tracing.trace import trace
from autoprune.space.verification.verify import Verified, verify


@torch.library.custom_op("autoprune_tests::centred", mutates_args=())
def centred(x: Tensor, channels: int) -> Tensor:
    """Channels without their mean, by a kernel that is told how many there are."""
    if x.shape[1] != channels:
        raise RuntimeError(f"{channels} channels announced, {x.shape[1]} given")
    return x - x.mean(1, keepdim=True)


@centred.register_fake
def _(x: Tensor, channels: int) -> Tensor:
    return torch.empty_like(x)


centred.register_autograd(lambda context, grad: (grad - grad.mean(1, keepdim=True), None))


def as_many(call: Sized) -> Arguments:
    return call.arguments | {"channels": call.arguments["x"].shape[1]}


ROW = OperatorRule(along_dim, resize=as_many, statistic=always)


def network() -> Net:
    def forward(n: Any, x: Tensor) -> Tensor:
        return classify(n, F.relu(n.b(centred(F.relu(n.a(x)), 16))))

    torch.manual_seed(0)
    return Net(forward, a=conv(3, 16), b=conv(16, 12), fc=nn.Linear(12, 5))


def verified(net: Net) -> Verified:
    return verify(net, trace(net, image()))


def reasons(found: Verified) -> dict[str, str]:
    return {part.name: part.reason for part in found.space.frozen}


def test_without_a_row_its_channels_stay_and_it_is_named() -> None:
    found = verified(network())
    assert [group.name for group in found.space.groups] == ["b"]
    assert reasons(found)["a"] == "centred in the model: operator autoprune_tests.centred.default has no rule"


def test_one_row_lets_its_channels_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RULES, "centred", ROW)
    net = network()
    found = verified(net)
    assert [group.name for group in found.space.groups] == ["a", "b"]
    assert found.space.form == "graph"
    ranking = random_ranking(found.space, np.random.default_rng(0))
    cut = slice_model(found.network, found.space, (5, 12), ranking)
    kept = torch.from_numpy(np.flatnonzero(ranking[0] < 5))
    with torch.no_grad():
        x = F.relu(net.a(image()))[:, kept]
        x = F.relu(F.conv2d(x - x.mean(1, keepdim=True), net.b.weight[:, kept], net.b.bias, padding=1))
        assert torch.allclose(cut(image()), classify(net, x), atol=1e-5)


def offer(monkeypatch: pytest.MonkeyPatch, name: str, what: str) -> None:
    """Let an installed package offer something of this module as an operator's rule."""
    points = EntryPoints([EntryPoint(name, f"{__name__}:{what}", "autoprune.operator_rules")])
    monkeypatch.setattr(registry, "entry_points", lambda group: points.select(group=group))
    offered_rules.cache_clear()


@pytest.fixture
def offered_anew() -> Iterator[None]:
    yield
    offered_rules.cache_clear()


@pytest.mark.parametrize("name", ["centred", "centred.default"])
def test_another_package_offers_a_row(name: str, monkeypatch: pytest.MonkeyPatch, offered_anew: None) -> None:
    offer(monkeypatch, name, "ROW")
    assert [group.name for group in verified(network()).space.groups] == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "what", "said"),
    [
        ("centred", "as_many", r"operator rule 'centred' is <function as_many.*; offer an OperatorRule of autoprune"),
        ("linear", "ROW", "operator rule 'linear' is offered by a package, but autoprune has one"),
        ("max.dim", "ROW", "operator rule 'max.dim' is offered by a package, but autoprune has one"),
        ("centred", "nothing", "has no 'nothing'"),
    ],
)
def test_a_row_that_cannot_be_is_refused_by_name(
    name: str, what: str, said: str, monkeypatch: pytest.MonkeyPatch, offered_anew: None
) -> None:
    offer(monkeypatch, name, what)
    with pytest.raises(RegistryError, match=said):
        rule_of(torch.ops.aten.linear.default)


@pytest.mark.parametrize(
    ("column", "told"), [({"resize": None}, "16 channels announced"), ({"statistic": lambda node: False}, "differs")]
)
def test_a_row_that_lacks_a_column_is_caught(
    column: dict[str, Any], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RULES, "centred", replace(ROW, **column))
    found = verified(network())
    assert [group.name for group in found.space.groups] == ["b"]
    assert told in reasons(found)["a"]


def test_a_row_may_hold_for_one_overload_alone() -> None:
    maximum = torch.ops.aten.max
    assert rule_of(maximum.other).statistic is not always
    assert rule_of(maximum.dim).statistic is always
    assert rule_of(maximum.dim).labels is not rule_of(maximum.other).labels


def test_what_has_no_row_is_pointwise_by_its_tag_or_unknown() -> None:
    assert rule_of(torch.ops.aten.sigmoid_.default).labels is rule_of(torch.ops.aten.add.Tensor).labels
    assert rule_of(torch.ops.aten.masked_scatter.default).labels is unknown
    assert rule_of(torch.ops.aten.prelu.default) is RULES["prelu"]  # tagged, but it has a row
