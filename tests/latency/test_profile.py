from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import autoprune
from autoprune.api.space import Space
from autoprune.cost.latency.device_profile import Conditions, DeviceProfile, cpu_name
from autoprune.cost.latency.latency_ms import FEATURES, latency_ms
from autoprune.errors import ConfigError
from autoprune.latency import profile as profiling
from autoprune.latency.kernel_times import KernelTimer
from autoprune.latency.measure import Latency, measure_many
from autoprune.latency.profile import build_profile, random_widths
from autoprune.zoo import build_model

EXAMPLE = torch.randn(1, 3, 32, 32)


@pytest.fixture(scope="module")
def traced() -> tuple[nn.Module, Space]:
    model = build_model("resnet20", {"width": 2.0})
    return model, autoprune.trace(model, EXAMPLE, verify=False)


def make(traced: tuple[nn.Module, Space], **given: Any) -> DeviceProfile:
    model, space = traced
    given = {"label": "resnet20", "networks": 12, **given}
    return build_profile(space.search_space, lambda widths: space.slice(model, widths), EXAMPLE, **given)


def test_networks_that_the_profile_has_not_seen_are_predicted(
    known_times: None, traced: tuple[nn.Module, Space]
) -> None:
    model, space = traced
    profile = make(traced)
    assert profile.machine == cpu_name()
    assert profile.conditions.batch == 1
    assert profile.features == FEATURES
    assert len(profile.networks) == 13  # the full one, too
    predict = latency_ms(space.search_space, profile=profile)
    rows = random_widths(space.search_space, 12, np.random.default_rng(99))
    networks = [space.slice(model, tuple(int(w) for w in row)) for row in rows]
    measured = np.array([latency.ms for latency in measure_many(networks, EXAMPLE)])
    errors = np.abs(predict(rows) / measured - 1)
    assert np.median(errors) < 0.03
    assert profile.error is not None
    assert profile.error.median < 0.05
    assert profile.error.noise == 0


def test_a_profile_serves_other_models_and_takes_what_they_lack(
    known_times: None, traced: tuple[nn.Module, Space]
) -> None:
    profile = make(traced)
    narrow = build_model("resnet20")  # the same kernels, half as wide
    narrower = autoprune.trace(narrow, EXAMPLE, verify=False).search_space
    assert latency_ms(narrower, profile=profile)(np.array([narrower.full]))[0] > 0
    other = build_model("vgg16")
    space = autoprune.trace(other, EXAMPLE, verify=False)
    more = make((other, space), label="vgg16", networks=10, add_to=profile)
    assert profile.tables.keys() <= more.tables.keys()
    full = np.array([traced[1].full])  # still covered, also where vgg16 is wider along one axis only
    assert latency_ms(traced[1].search_space, profile=more)(full)[0] > 0
    assert {network["model"] for network in more.networks} == {"resnet20", "vgg16"}
    assert len(more.networks) == len(profile.networks) + 11
    assert latency_ms(space.search_space, profile=more)(np.array([space.full]))[0] > 0


def test_kernels_alone_predict_their_sum(known_times: None, traced: tuple[nn.Module, Space]) -> None:
    profile = make(traced, networks=0)
    assert profile.error is None
    assert profile.coefficients == ()
    assert latency_ms(traced[1].search_space, profile=profile)(np.array([traced[1].full]))[0] > 0


def test_progress_ends(known_times: None, traced: tuple[nn.Module, Space]) -> None:
    told: list[tuple[str, int, int]] = []
    make(traced, progress=lambda *step: told.append(step))
    for what in ("sizes", "kernels, pass 1", "kernels, pass 2", "networks"):
        steps = [(done, total) for name, done, total in told if name == what]
        assert [done for done, _ in steps] == list(range(1, steps[0][1] + 1))


@pytest.mark.parametrize(("quiet_from", "passes"), [(1, 2), (4, 4), (100, 8)])
def test_kernels_are_timed_until_they_become_no_faster(
    known_times: None,
    traced: tuple[nn.Module, Space],
    monkeypatch: pytest.MonkeyPatch,
    quiet_from: int,
    passes: int,
) -> None:
    real, done = KernelTimer.time, dict[int, int]()

    def ever_faster(timer: KernelTimer) -> tuple[int, int]:
        done[id(timer)] = done.get(id(timer), 0) + 1
        faster, sizes = real(timer)
        return (faster, sizes) if done[id(timer)] >= quiet_from else (sizes, sizes)

    monkeypatch.setattr(KernelTimer, "time", ever_faster)
    make(traced, networks=0)
    assert set(done.values()) == {passes}


def test_the_noise_of_a_profile_is_what_two_measurements_differ_by(
    known_times: None, traced: tuple[nn.Module, Space], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = profiling.measure_twice

    def slower_the_second_time(*given: Any, **named: Any) -> tuple[list[Latency], list[Latency]]:
        first, second = real(*given, **named)
        slower = [replace(latency, quiet=1.5 * latency.quiet) for latency in second]
        return first, slower

    monkeypatch.setattr(profiling, "measure_twice", slower_the_second_time)
    found = make(traced)
    assert found.error is not None
    assert found.error.noise == pytest.approx(0.5)
    assert all(network["ms"] == pytest.approx(np.mean(network["rounds"])) for network in found.networks)


def test_random_widths_are_members_that_differ(traced: tuple[nn.Module, Space]) -> None:
    space = traced[1].search_space
    rows = random_widths(space, 40, np.random.default_rng(0))
    assert len({tuple(row) for row in rows.tolist()}) == 40
    assert all(tuple(row) in space for row in rows.tolist())
    again = random_widths(space, 40, np.random.default_rng(0))
    np.testing.assert_array_equal(rows, again)
    shares = rows.sum(axis=1) / sum(space.full)
    assert shares.min() < 0.3
    assert shares.max() > 0.85
    assert np.std(shares) > 0.2  # as many small ones as large ones
    spreads = np.std(rows / np.array(space.full), axis=1)
    assert spreads.min() < 0.07  # nearly uniform ones, and uneven ones
    assert spreads.max() > 0.2


def test_a_profile_that_was_made_otherwise_is_not_added_to(known_times: None, traced: tuple[nn.Module, Space]) -> None:
    profile = make(traced, networks=0)
    with pytest.raises(ConfigError, match=r"machine are Abacus, here "):
        make(traced, add_to=replace(profile, machine="Abacus"))
    with pytest.raises(ConfigError, match=r"conditions are torch, cpu, 1 thread.*here torch, cpu, 2 threads"):
        make(traced, add_to=profile, conditions=Conditions(threads=2))
    with pytest.raises(ConfigError, match="at least 10 networks are needed for a fit, got 3"):
        make(traced, networks=3)
