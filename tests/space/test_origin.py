from __future__ import annotations

import json
from collections import OrderedDict
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from autoprune.errors import SpaceError
from autoprune.space.cutting.graph_form import GraphNetwork
from autoprune.space.cutting.slicing import slice_model
from autoprune.space.origin import full_network, in_form, origin_of
from autoprune.space.serial import from_json, to_json
from autoprune.space.tracing.program import Example, run_model
from autoprune.space.tracing.trace import Traced, trace
from autoprune.space.verification.verify import Verified, verify


class Heads(nn.Module):
    """Splits 12 channels into 3 heads, by a number that no attribute holds; tokens may be numbers or vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.first, self.last = nn.Embedding(7, 4), nn.Linear(4, 12), nn.Linear(12, 2)

    def forward(self, tokens: Tensor, *more: Any, **named: Any) -> Tensor:
        x = tokens if tokens.is_floating_point() else self.words(tokens)
        heads = self.first(x).reshape(len(x), -1, 3, 4).transpose(1, 2)
        out: Tensor = self.last(heads.softmax(3).transpose(1, 2).flatten(2))
        return out


def numbered() -> Example:
    return (torch.ones(1, 5, dtype=torch.int64),)


def nested() -> Example:
    return {"tokens": torch.rand(1, 5, 4), "mask": [torch.ones(5, dtype=torch.bool), (2, None)], "how": {"fast": True}}


@pytest.fixture(scope="module", params=[numbered, nested])
def traced(request: pytest.FixtureRequest) -> Traced:
    torch.manual_seed(0)
    return trace(Heads(), request.param())


@pytest.fixture(scope="module")
def verified(traced: Traced) -> Verified:
    torch.manual_seed(0)
    return verify(Heads(), traced)


def test_a_graph_is_traced_again_from_plain_json(traced: Traced, verified: Verified) -> None:
    space = verified.space
    assert space.form == "graph"
    data = json.loads(json.dumps(to_json(space, origin=origin_of(traced))))
    again = from_json(data)
    assert again.fingerprint == space.fingerprint
    assert again.groups == space.groups
    widths, other = space.smallest, Heads().eval()
    ranking = tuple(torch.arange(group.slots).numpy() for group in space.groups)
    cuts = [
        slice_model(full, known, widths, ranking)
        for full, known in ((full_network(other, again, data["origin"]), again), (in_form(verified)(other), space))
    ]
    assert all(isinstance(cut, GraphNetwork) for cut in cuts)
    assert cuts[0].first.out_features < 12  # type: ignore[operator]
    outputs = [run_model(cut, traced.example) for cut in cuts]
    assert torch.equal(outputs[0], outputs[1])


def test_the_layouts_of_all_values_survive(traced: Traced, verified: Verified) -> None:
    again = from_json(json.loads(json.dumps(to_json(verified.space))))
    assert len(again.steps) == len(verified.space.steps) > 3
    for one, other in zip(again.steps, verified.space.steps, strict=True):
        assert (one.name, [dim for dim, _ in one.axes]) == (other.name, [dim for dim, _ in other.axes])
        for (_, a), (_, b) in zip(one.axes, other.axes, strict=True):
            assert a.group.tolist() == b.group.tolist()
            assert a.channel.tolist() == b.channel.tolist()


def test_what_is_traced_again_has_the_structure_of_the_example(traced: Traced, verified: Verified) -> None:
    network = full_network(Heads(), verified.space, origin_of(traced))
    assert isinstance(network, GraphNetwork)
    found, given = network.graph_plan.example, traced.example
    assert torch.utils._pytree.tree_structure(found) == torch.utils._pytree.tree_structure(given)
    for one, other in zip(*map(torch.utils._pytree.tree_leaves, (found, given)), strict=True):
        if isinstance(other, Tensor):
            assert (one.shape, one.dtype) == (other.shape, other.dtype)
        else:
            assert one == other


def test_a_space_of_module_form_needs_no_origin() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    traced = trace(model, torch.zeros(1, 4))
    verified = verify(model, traced)
    assert verified.space.form == "module"
    assert to_json(verified.space, origin=origin_of(traced))["origin"] is None
    assert full_network(model, verified.space, None) is model
    assert in_form(verified)(model) is model


class Pair(NamedTuple):
    first: Tensor
    second: Tensor


@pytest.mark.parametrize(
    ("example", "message"),
    [
        ((torch.zeros(1), object()), "part 1 of the example input is a object: "),
        ({"pair": Pair(torch.zeros(1), torch.zeros(1))}, "pair of the example input is a Pair: "),
        ({"options": OrderedDict(a=1)}, "options of the example input is a OrderedDict: "),
        ({"options": {1: 2}}, "options of the example input is a dict: "),
    ],
)
def test_what_no_file_can_hold_is_named(traced: Traced, example: Any, message: str) -> None:
    with pytest.raises(SpaceError, match=f"{message}.*must be tensors, numbers.*wrap the model"):
        origin_of(replace(traced, example=example))


@pytest.mark.parametrize("damage", [{"form": "cube"}, {"steps": [["x", [[0, 10**6]]]]}, {"steps": 3}])
def test_a_damaged_space_is_one_clear_error(verified: Verified, damage: dict[str, Any]) -> None:
    with pytest.raises(SpaceError, match=r"space file is incomplete or damaged .*trace it anew"):
        from_json(to_json(verified.space) | damage)
