"""Spaces of ranks: factors against numpy's decomposition, and costs against the networks that are built."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import autoprune
from autoprune.api.space import Space
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import ConfigError, SpaceError
from autoprune.importance.members import channel_scores
from autoprune.space.cutting.slicing import Slicer
from autoprune.space.serial import from_json, to_json
from autoprune.space.verification.flop_check import counted_by_fvcore


class Small(nn.Module):
    """Plain, strided, dilated and grouped convolutions, a layer called twice, and one that its parent looks into."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 12, 3, padding=1, padding_mode="reflect"), nn.BatchNorm2d(12)
        self.down = nn.Conv2d(12, 16, 3, stride=2, padding=2, dilation=2, bias=False)
        self.grouped, self.twice = nn.Conv2d(16, 16, 3, padding=1, groups=4), nn.Linear(16, 16)
        self.looked = nn.Linear(16, 16)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.grouped(torch.relu(self.down(torch.relu(self.norm(self.stem(x)))))))
        x = self.twice(torch.relu(self.twice(x.mean((2, 3)))))
        x = nn.functional.linear(x, self.looked.weight, self.looked.bias)
        return self.head(torch.relu(x))  # type: ignore[no-any-return]


EXAMPLE = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def small() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Small().eval()


def traced(model: nn.Module | None = None, exclude: tuple[str, ...] = ("looked",), **rank: Any) -> Space:
    return autoprune.trace(model or small(), EXAMPLE, options={"rank": rank, "exclude": exclude})


def test_costs_are_those_of_the_networks_and_never_above_the_layers() -> None:
    model, space = small(), traced()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    full = space.cost(space.full)
    assert full["params"] == sum(p.numel() for p in model.parameters())
    assert full["flops"] == counted_by_fvcore(model, EXAMPLE)
    domain = BudgetedSpace(space.search_space, {"flops": "70%"})
    rows = [tuple(int(w) for w in row) for row in domain.sample(5, np.random.default_rng(0))]
    highest = [(*space.full[:i], g.choices[-2], *space.full[i + 1 :]) for i, g in enumerate(space.groups)]
    for widths in (*rows, space.search_space.smallest, *highest):
        network = space.slice(model, widths)
        costs = space.cost(widths)
        assert costs["params"] == sum(p.numel() for p in network.parameters()) < full["params"]
        assert costs["flops"] == counted_by_fvcore(network, EXAMPLE) < full["flops"]
        stored = sum(t.numel() * t.element_size() for t in network.state_dict().values())
        assert costs["size_mb"] == pytest.approx(stored / 1e6)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("name", ["stem", "down", "twice", "head"])
def test_factors_are_numpys_truncated_decomposition(name: str) -> None:
    model, space = small(), traced()
    place = [group.name for group in space.groups].index(name)
    for rank in (1, space.groups[place].width // 2, space.groups[place].width - 1):
        widths = tuple(rank if i == place else w for i, w in enumerate(space.full))
        pair = space.slice(model, widths).get_submodule(name)
        first, second = (pair.get_submodule(part).weight.detach().double() for part in ("first", "second"))
        product = (second.flatten(1) @ first.flatten(1)).numpy()
        matrix = model.get_submodule(name).weight.detach().double().flatten(1).numpy()
        u, s, v = np.linalg.svd(matrix, full_matrices=False)
        assert first.shape[0] == second.shape[1] == rank
        assert np.allclose(product, (u[:, :rank] * s[:rank]) @ v[:rank], atol=1e-6)
        assert np.linalg.norm(matrix - product) == pytest.approx(np.sqrt((s[rank:] ** 2).sum()), abs=1e-5)


def test_a_layer_at_its_full_width_is_the_layer_itself() -> None:
    model, space = small(), traced()
    network = space.slice(model, space.full)
    assert type(network.get_submodule("stem")) is nn.Conv2d
    torch.testing.assert_close(network(EXAMPLE), model(EXAMPLE), rtol=0, atol=0)


def test_singular_values_are_the_importances() -> None:
    model, space = small(), traced().search_space
    for group, found in zip(space.groups, channel_scores(model, space, "l2"), strict=True):
        s = np.linalg.svd(model.get_submodule(group.name).weight.detach().flatten(1).numpy(), compute_uv=False) ** 2
        assert np.allclose(found[:-1], s[: group.width - 1][: len(found) - 1], rtol=1e-4, atol=1e-6)
        assert found.sum() == pytest.approx(s.sum(), rel=1e-4)


def test_decompositions_follow_weights_that_change() -> None:
    model, space = small(), traced().search_space
    slicer = Slicer(model, space, tuple(np.arange(g.width) for g in space.groups))
    one = slicer(space.smallest)
    with torch.no_grad():
        model.get_parameter("head.weight").mul_(-2.0)
    other = slicer(space.smallest)
    factors = [[net.get_parameter(f"head.{part}.weight") for part in ("second", "first")] for net in (one, other)]
    products = [left @ right for left, right in factors]
    torch.testing.assert_close(products[1], -2.0 * products[0])


def test_what_cannot_be_two_layers_says_why() -> None:
    space = traced()
    reasons = {part.name: part.reason for part in space.frozen}
    assert reasons["grouped"] == "it is a grouped convolution"
    assert reasons["looked"] == "excluded by 'looked'"
    with pytest.raises(SpaceError, match=r"layer 'looked' cannot be two layers in this Small .*exclude: \[looked\]"):
        traced(exclude=())
    with pytest.raises(SpaceError, match=r"'stm' matches no layer.*Did you mean 'stem'"):
        traced(layers=["stm"])
    with pytest.raises(ConfigError, match="density is searched at full widths, so that rank would say nothing"):
        autoprune.trace(small(), EXAMPLE, options={"rank": {}, "density": {}, "exclude": ["looked"]})
    with pytest.raises(ConfigError, match="least_squares fits the layers of the dense network"):
        space.slice(small(), space.search_space.smallest, inherit=["least_squares"], calibration=EXAMPLE)


def test_a_space_goes_through_json_and_damage_is_found() -> None:
    space = traced().search_space
    data = json.loads(json.dumps(to_json(space)))
    again = from_json(data)
    assert again.factors == space.factors
    assert again.fingerprint == space.fingerprint
    for key, value in (("shape", [3, 3]), ("layer", "other"), ("group", "other")):
        broken = json.loads(json.dumps(data))
        broken["factors"][0][key] = value
        with pytest.raises(SpaceError, match="factors"):
            from_json(broken)
