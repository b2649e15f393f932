"""Spaces of resolutions: costs against fvcore at every size, networks against resized images, and what is refused."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import autoprune
from autoprune.api.space import Space
from autoprune.cost import METRICS
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.cost.unpriced import UnpricedError
from autoprune.errors import ConfigError, SpaceError
from autoprune.evaluators.making import make_evaluator
from autoprune.space.serial import from_json, to_json
from autoprune.space.verification.flop_check import counted_by_fvcore
from autoprune.testing.evaluators import TinyNet, tiny_bench
from autoprune.zoo.resnet import resnet20

IMAGE = torch.randn(1, 1, 16, 24, generator=torch.Generator().manual_seed(0))


def net() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return resnet20(in_channels=1, classes=10, width=0.25).eval()


def traced(model: nn.Module | None = None, **options: Any) -> Space:
    return autoprune.trace(model or net(), IMAGE, options={"resolution": {"divisor": 2}, "blocks": True, **options})


@pytest.fixture(scope="module")
def space() -> Space:
    return traced()


@pytest.fixture(scope="module")
def plain() -> Space:
    return autoprune.trace(net(), IMAGE, options={"blocks": True})


def test_costs_are_those_that_fvcore_counts_at_every_size(space: Space) -> None:
    model = net()
    assert space.groups[-1].choices == (8, 10, 12, 14, 16)
    assert space.cost(space.full)["flops"] == counted_by_fvcore(model, IMAGE)
    rng = np.random.default_rng(0)
    for side in space.groups[-1].choices:
        widths = (*(int(rng.choice(group.choices)) for group in space.groups[:-1]), side)
        network = space.slice(model, widths)
        costs = space.cost(widths)
        assert costs["flops"] == counted_by_fvcore(network, IMAGE)
        assert costs["params"] == sum(p.numel() for p in network.parameters())
        assert "peak_memory_mb" not in costs


def test_a_network_sees_smaller_images_and_is_what_it_was_otherwise(space: Space) -> None:
    model = net()
    images = torch.randn(5, 1, 16, 24, generator=torch.Generator().manual_seed(1))
    network = space.slice(model, (*space.full[:-1], 10))
    smaller = F.interpolate(images, size=(10, 15), mode="bilinear")
    with torch.no_grad():
        torch.testing.assert_close(network(images), model(smaller))
        assert not torch.allclose(network(images), model(images), atol=1e-3)
        torch.testing.assert_close(space.slice(model, space.full)(images), model(images))
    assert not model._forward_pre_hooks
    program = torch.export.export(network, (images,))
    torch.testing.assert_close(program.module()(images), network(images))


def test_halving_by_hand_is_the_mean_of_neighbours(space: Space) -> None:
    model = net()
    seen: list[Tensor] = []
    network = space.slice(model, (*space.full[:-1], 8))
    network.get_submodule("conv").register_forward_pre_hook(lambda layer, given: seen.append(given[0]))
    network(IMAGE)
    expected = IMAGE.numpy().reshape(1, 1, 8, 2, 12, 2).mean((3, 5))
    assert np.allclose(seen[0].numpy(), expected, atol=1e-6)


def test_budgets_are_met_at_several_sizes_and_uniform_sees_images_as_they_are(space: Space) -> None:
    searched = space.search_space
    for share, sizes in (("20%", 3), ("40%", 3), ("80%", 2)):
        domain = BudgetedSpace(searched, {"flops": share})
        rows = domain.sample(60, np.random.default_rng(0))
        assert domain.feasible(rows).all()
        assert domain.budget.usage(rows).min() > 0.9
        assert len(set(rows[:, -1].tolist())) >= sizes
        assert domain.uniform()[-1] == 16
    low = BudgetedSpace(searched, {"flops": "40%"}).repair(np.array([[*searched.full[:-1], 8]]))
    assert low[0, -1] == 10  # the whole network at 8 pixels uses a quarter
    least = float(METRICS.get("flops")(searched)(np.array([searched.smallest]))[0])
    tight = BudgetedSpace(searched, {"flops": least}).sample(3, np.random.default_rng(0))
    assert (METRICS.get("flops")(searched)(tight) == least).all()
    assert (tight[:, -1] == 8).all()


@pytest.mark.parametrize(
    "inherit", [["least_squares", "bn_recalibration"], ["sequential_least_squares"], ["mean_fold"]]
)
def test_weights_inherit_from_the_network_as_it_sees_images_of_that_size(
    inherit: list[str], space: Space, plain: Space
) -> None:
    model = net()
    images = torch.randn(64, 1, 16, 24, generator=torch.Generator().manual_seed(2))
    smaller = F.interpolate(images, size=(12, 18), mode="bilinear")
    widths = (*BudgetedSpace(space.search_space, {"flops": "60%"}).uniform()[:-1], 12)
    network = space.slice(model, widths, inherit=inherit, calibration=images)
    other = plain.slice(model, widths[:-1], inherit=inherit, calibration=smaller)  # knows nothing of resolutions
    for (name, one), (_, two) in zip(network.state_dict().items(), other.state_dict().items(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5, msg=name)


def test_what_cannot_be_resized_is_refused(space: Space) -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(1, 8, 3, padding=1), nn.Linear(8 * 16 * 24, 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(torch.relu(self.first(x)).flatten(1))  # type: ignore[no-any-return]

    class Maps(Flat):
        def forward(self, x: Tensor) -> Tensor:
            return self.first(torch.relu(self.first(x).mean(1, keepdim=True)))  # type: ignore[no-any-return]

    for model, told in (
        (Flat(), r"Flat does not run at 8 of 16 pixels .*leave resolution out"),
        (Maps(), r"Maps gives outputs of \[\(1, 8, 8, 12\)\] at 8 of 16 pixels"),
    ):
        with pytest.raises(SpaceError, match=told):
            traced(model, blocks=False)
    with pytest.raises(SpaceError, match="there is no multiple of 32 from 8 to 15 pixels"):
        traced(resolution={"divisor": 32})
    with pytest.raises(SpaceError, match=r"must be images \(N, C, H, W\)"):
        autoprune.trace(nn.Linear(3, 3), torch.zeros(1, 3), options={"resolution": {}})
    with pytest.raises(ConfigError, match="bits cannot be searched together with resolution"):
        traced(bits={"widths": True}, blocks=False)
    with pytest.raises(ConfigError, match="rank is searched at full widths, so that resolution would say nothing"):
        traced(rank={}, blocks=False)
    with pytest.raises(UnpricedError, match="peak_memory_mb is known at one size of images only"):
        METRICS.get("peak_memory_mb")(space.search_space)
    with pytest.raises(UnpricedError, match="latency_ms is known at one size of images only"):
        METRICS.get("latency_ms")(space.search_space, profile={})


def test_a_space_goes_through_json_and_damage_is_found(space: Space) -> None:
    searched = space.search_space
    data = json.loads(json.dumps(to_json(searched)))
    again = from_json(data)
    assert again.resolution == searched.resolution
    assert again.fingerprint == searched.fingerprint
    rows = BudgetedSpace(searched, {"flops": "50%"}).sample(5, np.random.default_rng(0))
    assert (METRICS.get("flops")(again)(rows) == METRICS.get("flops")(searched)(rows)).all()
    for key, value in (("sides", [8, 16]), ("shape", [8, 8]), ("coefficients", [[1]] * 5)):
        broken = json.loads(json.dumps(data))
        broken["resolution"][key] = value
        with pytest.raises(SpaceError, match="resolution"):
            from_json(broken)


def test_short_trainings_train_and_score_at_that_size() -> None:
    bench = tiny_bench()
    space = autoprune.trace(TinyNet(), torch.zeros(1, 1, 6, 6), options={"resolution": {"divisor": 1}}).search_space
    factory = type(bench)(bench.model, space, (*bench.ranking, np.arange(6)), bench.task, base_epochs=3)
    evaluator = make_evaluator("short_training", factory, {"steps": 4, "lr": 0.01})
    network = factory.heirs("training")((*space.full[:-1], 4))
    kept = io.BytesIO()
    torch.save(network.state_dict(), kept)
    assert {name.partition(".")[0] for name in network.state_dict()} == {"features", "head"}
    scores = [float(evaluator.evaluate((*space.full[:-1], side), seed=0)) for side in space.groups[-1].choices]
    assert max(scores[:-1]) < scores[-1]  # stripes of one pixel vanish
