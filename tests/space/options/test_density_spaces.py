"""Spaces of densities: what costs say is what is counted in the networks, in every pattern."""

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
from autoprune.space.cutting.masks import counted, masks_of, of_units, units_of
from autoprune.space.cutting.slicing import Slicer, random_ranking
from autoprune.space.density import LayerDensity
from autoprune.space.serial import from_json, to_json
from autoprune.space.verification.flop_check import counted_by_fvcore

PATTERNS = ("unstructured", "2:4", "N:4", "1x4", "4x1", "2x2")


class Small(nn.Module):
    """A plain, a grouped and a transposed convolution, attention and a layer that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.grouped, self.up = nn.Conv2d(8, 8, 3, padding=1, groups=2), nn.ConvTranspose2d(8, 12, 2, stride=2)
        self.attention, self.twice = nn.MultiheadAttention(12, 3, batch_first=True), nn.Linear(12, 12)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(torch.relu(self.grouped(torch.relu(self.norm(self.stem(x))))))
        x = x.flatten(2).transpose(1, 2)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return self.head(torch.relu(self.twice(torch.relu(self.twice(x)))).mean(1))  # type: ignore[no-any-return]


EXAMPLE = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def small() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Small().eval()


def traced(model: nn.Module | None = None, **density: Any) -> Space:
    return autoprune.trace(model or small(), EXAMPLE, options={"density": density})


def sampled(space: Space, n: int = 6) -> list[tuple[int, ...]]:
    domain = BudgetedSpace(space.search_space, {"params": "70%"})
    return [tuple(int(w) for w in row) for row in domain.sample(n, np.random.default_rng(0))]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_weights_that_are_not_zero_are_those_that_costs_count(pattern: str) -> None:
    model = small()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    space = traced(model, pattern=pattern)
    full = space.cost(space.full)
    assert full["params"] == sum(p.numel() for p in model.parameters())
    for seed, widths in enumerate(sampled(space)):
        network = Slicer(model, space.search_space, random_ranking(space.search_space, np.random.default_rng(seed)))(
            widths
        )
        left = sum(int((p != 0).sum()) if p.ndim > 1 else p.numel() for p in network.parameters())
        assert left == space.cost(widths)["params"] < full["params"]
        assert {n: t.shape for n, t in network.state_dict().items()} == {n: t.shape for n, t in before.items()}
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not masks_of(model)


def test_multiply_adds_are_those_of_each_weight_that_stays() -> None:
    """Of the dense network as fvcore counts; each layer's share follows its weights, also where it is called twice."""
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 3, stride=2, padding=1), nn.Flatten(), nn.Linear(16, 5)
    )
    space = traced(model)
    assert space.cost(space.full)["flops"] == counted_by_fvcore(model, EXAMPLE) == 16 * 216 + 4 * 288 + 80
    first, second, last = space.search_space.densities
    for widths in sampled(space):
        kept = [d.kept(w) for d, w in zip((first, second, last), widths, strict=True)]
        assert space.cost(widths)["flops"] == 16 * kept[0] + 4 * kept[1] + kept[2]
    shared = traced()
    twice = shared.search_space.groups.index(next(g for g in shared.groups if g.name == "twice"))
    less = tuple(g.width - (i == twice) for i, g in enumerate(shared.groups))
    lost = shared.search_space.densities[twice].per_step
    assert shared.cost(shared.full)["flops"] - shared.cost(less)["flops"] == 2 * 64 * lost


@pytest.mark.parametrize(("pattern", "n"), [("2:4", 2), ("N:4", 1), ("N:4", 3), ("3:8", 3)])
def test_n_of_m_neighbours_along_the_inputs_stay(pattern: str, n: int) -> None:
    model = small()
    space = traced(model, pattern=pattern, layers=["grouped", "up", "twice"]) if "8" not in pattern else None
    if space is None:
        model = nn.Sequential(nn.Conv2d(3, 16, 1), nn.Conv2d(16, 4, 3))
        space = traced(model, pattern=pattern, layers=["1"])
    m = int(pattern[-1])
    widths = tuple(n for _ in space.groups)
    network = space.slice(model, widths, criterion="magnitude")
    for density in space.search_space.densities:
        weight, dense = (dict(net.named_parameters())[density.tensor].detach() for net in (network, model))
        rows = weight.movedim(density.reads, -1).reshape(-1, m)  # neighbours along the inputs
        of_dense = dense.movedim(density.reads, -1).reshape(-1, m)
        assert bool(((rows != 0).sum(dim=1) == n).all())
        assert torch.equal(rows.abs().sort(dim=1).values[:, m - n :], of_dense.abs().sort(dim=1).values[:, m - n :])


def test_a_fixed_pattern_is_there_or_not() -> None:
    space = traced(pattern="2:4")
    assert {group.choices for group in space.groups} == {(2, 4)}
    assert {group.name for group in space.groups} == {
        "grouped",
        "up",
        "attention",
        "attention.out_proj",
        "twice",
        "head",
    }
    assert [(part.name, part.reason) for part in space.frozen] == [("stem", "its 3 inputs are no multiple of 4")]


@pytest.mark.parametrize(("pattern", "rows", "columns"), [("1x4", 1, 4), ("4x1", 4, 1), ("2x2", 2, 2)])
def test_blocks_go_as_a_whole_the_smallest_first(pattern: str, rows: int, columns: int) -> None:
    model = nn.Sequential(nn.Linear(8, 12))
    space = autoprune.trace(model, torch.randn(1, 8), options={"density": {"pattern": pattern, "steps": 24}})
    network = space.slice(model, (10,), criterion="magnitude")
    assert space.full == (24,)
    blocks = network[0].weight.detach().reshape(12 // rows, rows, 8 // columns, columns).transpose(1, 2).flatten(2)
    dense = model[0].weight.detach().reshape(12 // rows, rows, 8 // columns, columns).transpose(1, 2).flatten(2)
    there = (blocks != 0).all(dim=2)
    assert torch.equal(there, (blocks != 0).any(dim=2))
    sums = dense.abs().sum(dim=2)
    assert int(there.sum()) == 10
    assert sums[there].min() >= sums[~there].max()


def test_weights_compete_in_their_layer_or_in_their_output() -> None:
    model = nn.Sequential(nn.Linear(10, 4))
    with torch.no_grad():
        model[0].weight[0] *= 100.0
    one, other = (
        autoprune.trace(model, torch.randn(1, 10), options={"density": {"steps": 10, "compare": how}})
        for how in ("layer", "output")
    )
    left = [(space.slice(model, (5,), criterion="magnitude")[0].weight != 0).sum(dim=1) for space in (one, other)]
    assert int(left[0][0]) == 10
    assert left[1].tolist() == [5, 5, 5, 5]


def test_steps_need_not_divide_the_weights() -> None:
    density = LayerDensity("x", "x.weight", (7, 15), 10)
    assert [density.kept(width) for width in (1, 2, 9, 10)] == [15, 25, 95, 105]
    model = nn.Sequential(nn.Linear(15, 7))
    for most, steps, step in ((10, 10, 10), (64, 52, 2), (105, 105, 1), (1024, 105, 1), (2, 2, 52)):
        space = autoprune.trace(model, torch.randn(1, 15), options={"density": {"steps": most, "min_density": 0.001}})
        assert space.full == (steps,)
        for width in {1, steps // 2, steps}:
            network = space.slice(model, (width,), criterion="magnitude")
            left = 105 - step * (steps - width)
            assert int((network[0].weight != 0).sum()) == left == space.cost((width,))["params"] - 7


@pytest.mark.parametrize("reads", [0, 1])
@pytest.mark.parametrize("block", [(1, 1), (2, 1), (1, 4), (2, 2)])
def test_units_and_weights_are_two_views_of_one(reads: int, block: tuple[int, int]) -> None:
    density = LayerDensity("x", "x.weight", (4, 8, 3, 2), 6, reads=reads, block=block)
    weights = torch.randn(4, 8, 3, 2)
    units = units_of(density, weights)
    assert units.shape == (density.units, density.unit)
    assert torch.equal(of_units(density, units), weights)
    marked = of_units(density, torch.arange(density.units))
    assert torch.equal(units_of(density, marked), torch.arange(density.units)[:, None].expand(-1, density.unit))


def test_a_space_goes_through_json_and_damage_is_found() -> None:
    space = traced(pattern="N:4").search_space
    data = json.loads(json.dumps(to_json(space)))
    again = from_json(data)
    assert again.fingerprint == space.fingerprint
    assert again.densities == space.densities
    assert again.groups == space.groups
    for key, value in (("shape", [8, 4, 3]), ("rows", 7), ("block", [1, 3]), ("group", "other"), ("reads", 2)):
        broken = json.loads(json.dumps(data))
        broken["densities"][0][key] = value
        with pytest.raises(SpaceError, match="densities"):
            from_json(broken)
    with pytest.raises(SpaceError, match="has no density of its steps"):
        from_json({**data, "densities": data["densities"][1:]})


def test_layers_stay_dense_where_they_are_told_to() -> None:
    space = autoprune.trace(
        small(), EXAMPLE, options={"density": {"layers": ["stem", "tw*", "head"]}, "exclude": ["head"]}
    )
    assert [group.name for group in space.groups] == ["stem", "twice"]
    reasons = {part.name: part.reason for part in space.frozen}
    assert reasons["head"] == "excluded by 'head'"
    assert reasons["up"] == "density.layers does not name it"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"density": {"pattern": "4:2"}}, "fewer than M of every M"),
        ({"density": {"pattern": "sparse"}}, "must be unstructured, N:M"),
        ({"density": {"pattern": 124}}, "pattern"),
        ({"density": {"steps": 1}}, "steps"),
        ({"density": {"min_density": 0}}, "min_density"),
        ({"density": {}, "divisor": 8}, "divisor would say nothing"),
        ({"density": {"layers": ["stm"]}}, "'stm' matches no layer with weights.*Did you mean 'stem'"),
        ({"density": {}, "exclude": ["x"]}, "exclude: 'x' matches no layer"),
        ({"density": {"pattern": "2:4", "layers": ["stem"]}}, "no layer of this model can have a density .*3 inputs"),
    ],
)
def test_what_cannot_be_is_one_clear_error(options: dict[str, Any], told: str) -> None:
    with pytest.raises((ConfigError, SpaceError), match=told):
        autoprune.trace(small(), EXAMPLE, options=options)


def test_uniform_is_one_density_and_repair_keeps_the_budget() -> None:
    domain = BudgetedSpace(traced().search_space, {"params": "40%"})
    uniform = np.array(domain.uniform())
    assert np.ptp(uniform / np.array(domain.space.full)) <= 1 / 16
    rows = domain.sample(50, np.random.default_rng(1))
    usage = domain.budget.usage(rows)
    assert usage.max() <= 1.0
    assert usage.min() >= 0.97


def test_a_network_that_lost_weights_keeps_its_masks_in_copies_and_no_state_dict() -> None:
    import copy

    space, model = traced(), small()
    network = space.slice(model, space.uniform(0.5), criterion="magnitude")
    copied = copy.deepcopy(network)
    assert counted(copied) == counted(network)
    assert not [name for name in network.state_dict() if "mask" in name]
    torch.testing.assert_close(copied(EXAMPLE), network(EXAMPLE))
    torch.export.export(network, (EXAMPLE,))
