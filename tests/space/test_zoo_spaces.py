from __future__ import annotations

import json
import random
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import autoprune
from autoprune.cost import METRICS
from autoprune.cost.pricing import price
from autoprune.errors import SpaceError
from autoprune.space.cutting.slicing import random_ranking, slice_model
from autoprune.space.groups import SearchSpace, Widths
from autoprune.space.serial import from_json, to_json
from autoprune.space.tracing.trace import trace
from autoprune.space.verification.flop_check import counted_by_fvcore
from autoprune.space.verification.verify import Verified, verify
from autoprune.testing.masking import largest_error, randomised
from autoprune.zoo import ZOO, build_model

SMALL = {
    "resnet20": {"width": 0.5},
    "resnet20-pad": {"width": 0.5, "shortcut": "pad"},
    "resnet56": {"width": 0.25},
    "resnet110": {"width": 0.25},
    "preresnet164": {"width": 0.25},
    "vgg16": {"width": 0.125},
    "vgg19": {"width": 0.125},
    "mobilenetv2": {"width": 0.25},
    "densenet40": {"width": 0.5},
}
FAST = ["resnet20", "resnet20-pad", "vgg16", "mobilenetv2", "densenet40"]
FULL = [*(name for name in ZOO.names() if name != "char_llama"), "resnet20-pad", "resnet56-pad", "resnet110-pad"]


def names(fast: list[str], every: list[str]) -> list[object]:
    return [pytest.param(n, marks=() if n in fast else pytest.mark.slow) for n in every]


@cache
def verified(name: str, full: bool = False) -> tuple[nn.Module, Verified, Tensor]:
    """A randomised zoo network, its space and an image; smaller than the published ones unless `full`."""
    arguments = {"shortcut": "pad"} if full and name.endswith("-pad") else {} if full else SMALL[name]
    torch.manual_seed(0)
    model = randomised(build_model(name.removesuffix("-pad"), arguments))
    image = torch.randn(1, 3, 16, 16)
    return model, verify(model, trace(model, image)), image


def network(name: str, full: bool = False) -> tuple[nn.Module, SearchSpace, Tensor]:
    """The network in the form of its space, the space and an image."""
    _, found, image = verified(name, full)
    return found.network, found.space, image


def error(name: str, seed: int, full: bool = False) -> float:
    """Of a random cut."""
    model, found, image = verified(name, full)
    rng = np.random.default_rng(seed)
    widths = random_widths(found.space, rng)
    return largest_error(model, found.network, found.space, image, widths, random_ranking(found.space, rng))


def random_widths(space: SearchSpace, rng: np.random.Generator) -> Widths:
    return tuple(int(rng.choice(group.choices)) for group in space.groups)


def spread_ranking(space: SearchSpace, seed: int) -> tuple[np.ndarray, ...]:
    return random_ranking(space, np.random.default_rng(seed))


@pytest.mark.parametrize("name", names(FAST, list(SMALL)))
@settings(max_examples=8, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1))
def test_cut_networks_compute_what_masked_ones_do(name: str, seed: int) -> None:
    assert error(name, seed) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL)
def test_cut_networks_of_full_size_compute_what_masked_ones_do(name: str) -> None:
    assert max(error(name, seed, full=True) for seed in range(5)) < 1e-4


def assert_costs_are_exact(model: nn.Module, space: SearchSpace, image: Tensor, vectors: int) -> None:
    rng = np.random.default_rng(2)
    candidates: list[Widths] = [space.full, space.smallest, *(random_widths(space, rng) for _ in range(vectors - 2))]
    priced = {name: METRICS.get(name)(space)(np.array(candidates)) for name in ("flops", "params")}
    for index, widths in enumerate(candidates):
        built = slice_model(model, space, widths, random_ranking(space, rng))
        assert priced["params"][index] == sum(p.numel() for p in built.parameters())
        assert priced["flops"][index] == counted_by_fvcore(built, image)


@pytest.mark.parametrize("name", names(FAST, list(SMALL)))
def test_closed_form_costs_are_those_of_the_network_really_built(name: str) -> None:
    assert_costs_are_exact(*network(name), vectors=10)


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL)
def test_closed_form_costs_of_full_size_networks_are_exact_200_times(name: str) -> None:
    assert_costs_are_exact(*network(name, full=True), vectors=200)


@pytest.mark.parametrize("kind", ["projection", "pad"])
def test_what_can_be_cut_of_a_resnet(kind: str) -> None:
    """Each block's inner maps, and the residual ones; a padded stage has channels of its own around those it is fed."""
    torch.manual_seed(0)
    space = autoprune.trace(build_model("resnet20", {"width": 0.5, "shortcut": kind}), torch.randn(1, 3, 16, 16))
    residual = [group.name for group in space.groups if group.residual]
    inner = [group.name for group in space.groups if not group.residual]
    assert inner == [f"stages.stage{s}.{b}.conv1" for s in (1, 2, 3) for b in range(3)]
    assert len(residual) == (3 if kind == "projection" else 5)
    assert {part.name for part in space.frozen} == {"linear"}
    assert space.search_space.form == ("module" if kind == "projection" else "graph")


def test_only_the_classifier_of_a_chain_is_frozen() -> None:
    _, space, _ = network("vgg16")
    assert [part.name for part in space.frozen] == ["linear"]
    assert len(space.groups) == 13


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def generators() -> tuple[object, ...]:
    numbers = np.random.get_state()
    return random.getstate(), numbers[0], tuple(numbers[1]), numbers[2:], tuple(torch.get_rng_state().tolist())  # type: ignore[index]


class Restless(nn.Module):
    """Draws from every global generator in each forward, and has modules with training flags of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Dropout(0.5)
        )
        self.head = nn.Linear(8, 4)
        self.layers[1].eval()

    def forward(self, x: Tensor) -> Tensor:
        random.random()
        np.random.random()
        torch.rand(3)
        return self.head(self.layers(x).mean((2, 3)))  # type: ignore[no-any-return]


def test_tracing_leaves_model_flags_and_generators_as_they_were() -> None:
    model = Restless().train()
    model.layers[1].eval()
    weights, flags, before = state(model), [m.training for m in model.modules()], generators()
    identities = [id(tensor) for tensor in (*model.parameters(), *model.buffers())]
    space = autoprune.trace(model, torch.ones(2, 3, 8, 8))
    assert generators() == before
    space.slice(model, space.uniform(0.5))
    assert generators() == before
    assert [m.training for m in model.modules()] == flags
    assert [id(tensor) for tensor in (*model.parameters(), *model.buffers())] == identities
    assert all(torch.equal(weights[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("ratio", [1.0, 0.5])
def test_a_cut_network_shares_no_storage_trains_and_is_of_the_same_class(ratio: float) -> None:
    model, space, image = network("mobilenetv2")
    model(image).sum().backward()
    cut = slice_model(model, space, space.uniform(ratio), spread_ranking(space, 0))
    assert type(cut) is type(model)
    assert all(parameter.grad is None for parameter in cut.parameters())
    model.zero_grad()
    ours = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    assert not any(t.untyped_storage().data_ptr() in ours for t in (*cut.parameters(), *cut.buffers()))
    cut(image).sum().backward()
    assert all(parameter.grad is not None and parameter.requires_grad for parameter in cut.parameters())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_layers_of_a_cut_network_know_their_sizes() -> None:
    model, space, _ = network("mobilenetv2")
    cut = slice_model(model, space, space.smallest, spread_ranking(space, 0))
    for module in cut.modules():
        if isinstance(module, nn.Conv2d):
            assert module.weight.shape[:2] == (module.out_channels, module.in_channels // module.groups)
        elif isinstance(module, nn.Linear):
            assert module.weight.shape == (module.out_features, module.in_features)
        elif isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.num_features == len(module.weight) == len(module.running_mean)


OTHERS: dict[str, Callable[[], nn.Module]] = {
    "deeper": lambda: build_model("resnet56", {"width": 0.5}),
    "wider": lambda: build_model("resnet20"),
    "another class": lambda: build_model("vgg16"),
    "another shortcut": lambda: build_model("resnet20", {"width": 0.5, "shortcut": "pad"}),
}


@pytest.mark.parametrize("other", OTHERS)
def test_another_network_than_the_traced_one_is_refused(other: str) -> None:
    _, space, _ = network("resnet20")
    model = OTHERS[other]()
    with pytest.raises(SpaceError, match="in the network that was traced; trace this one anew"):
        slice_model(model, space, space.smallest, spread_ranking(space, 0))
    with pytest.raises(SpaceError, match="trace this one anew"):
        autoprune.Space(space).slice(model, space.smallest)


@pytest.mark.parametrize("name", FAST)
def test_a_space_written_as_json_is_the_same_space(name: str) -> None:
    model, space, _ = network(name)
    again = from_json(json.loads(json.dumps(to_json(space))))
    rng = np.random.default_rng(0)
    assert again.fingerprint == space.fingerprint
    assert (again.groups, again.frozen, again.operations) == (space.groups, space.frozen, space.operations)
    widths, ranking = random_widths(space, rng), random_ranking(space, rng)
    one, other = (slice_model(model, s, widths, ranking).state_dict() for s in (space, again))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
    one_price, other_price = price(space), price(again)
    assert one_price.keys() == other_price.keys() >= {"flops", "params", "size_mb", "peak_memory_mb"}
    row = np.array([widths])
    assert all(one_price[name](row)[0] == other_price[name](row)[0] for name in one_price)


def test_a_damaged_space_file_is_refused() -> None:
    data = to_json(network("resnet20")[1])
    with pytest.raises(SpaceError, match="format 7; this version reads 1 and 2"):
        from_json({**data, "format": 7})
    with pytest.raises(SpaceError, match="incomplete or damaged"):
        from_json({key: value for key, value in data.items() if key != "axes"})
    with pytest.raises(SpaceError, match="incomplete or damaged"):
        from_json({**data, "operations": [{**data["operations"][0], "sizes": [{"constant": 1, "terms": [[1]]}]}]})


def test_the_same_code_and_seed_give_the_same_space() -> None:
    torch.manual_seed(0)
    model = build_model("resnet20", {"width": 0.5})
    one, other = (autoprune.trace(model, torch.randn(1, 3, 16, 16)).search_space for _ in range(2))
    assert to_json(one) == to_json(other)
