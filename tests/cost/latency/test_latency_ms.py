from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import autoprune
from autoprune.cost.latency.device_profile import Conditions, DeviceProfile, Grid, KernelTable, cpu_name
from autoprune.cost.latency.kernels import distinct_kernels, timed_calls
from autoprune.cost.latency.latency_ms import FEATURES, KINDS, LatencyPrediction, latency_ms
from autoprune.cost.latency.profile_files import read_profile, write_profile
from autoprune.cost.unpriced import UnpricedError
from autoprune.errors import BudgetError, ConfigError
from autoprune.space.groups import SearchSpace
from autoprune.testing.spaces import chain_space
from autoprune.zoo import build_model

SIZE = st.integers(1, 40)


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return autoprune.trace(build_model("resnet20"), torch.randn(1, 3, 32, 32), verify=False).search_space


def made_up_profile(space: SearchSpace) -> DeviceProfile:
    """Every kernel takes a nanosecond for each element along its axes, sizes multiplied."""
    tables: dict[str, KernelTable | None] = {}
    for name, (kernel, calls) in distinct_kernels(timed_calls(space)).items():
        full = [max(size(space.full) for size in sizes) for sizes in zip(*(c.sizes for c in calls), strict=True)]
        axes = tuple(np.array([1.0, n / 2, n]) for n in full)
        times = np.array(1e-6)
        for axis in axes:
            times = np.multiply.outer(times, axis)
        tables[name] = KernelTable(1, (Grid(axes, times),)) if kernel.axes <= 2 else None
    return DeviceProfile(Conditions(batch=1), cpu_name(), {"torch": "2"}, "2026-01-01", tables)


def random_rows(space: SearchSpace, n: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.stack([rng.choice(group.choices, size=n) for group in space.groups], axis=1)


@settings(deadline=None)
@given(st.lists(SIZE, min_size=2, max_size=6, unique=True), st.lists(SIZE, min_size=2, max_size=6, unique=True))
def test_a_grid_is_exact_where_times_are_products(rows: list[int], columns: list[int]) -> None:
    axes = tuple(np.array(sorted(axis), dtype=float) for axis in (rows, columns))

    def truth(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return 1.0 + 2.0 * a + 3.0 * b + 0.5 * a * b

    grid = Grid(axes, truth(*np.meshgrid(*axes, indexing="ij")))
    rng = np.random.default_rng(0)
    inside = [rng.uniform(axis[0], axis[-1], 50) for axis in axes]
    np.testing.assert_allclose(grid(inside), truth(*inside))
    outside = [np.array([0.0, 100.0])] * 2
    np.testing.assert_allclose(
        grid(outside), truth(*[np.clip(o, a[0], a[-1]) for o, a in zip(outside, axes, strict=True)])
    )


def test_multiples_have_a_grid_of_their_own() -> None:
    grids = tuple(Grid((np.array([1.0, 9.0]),), np.array([level, level])) for level in (1.0, 2.0))
    assert KernelTable(4, grids)([np.array([4.0, 5.0, 8.0, 8.5])]).tolist() == [1.0, 2.0, 1.0, 1.0]


def test_a_network_takes_the_sum_of_its_kernels(space: SearchSpace) -> None:
    predict = latency_ms(space, profile=made_up_profile(space))
    rows = random_rows(space, 20)
    by_hand = [
        sum(1e-6 * np.prod([size(tuple(row)) for size in call.sizes]) for call in timed_calls(space)) for row in rows
    ]
    np.testing.assert_allclose(predict(rows), by_hand)
    parts = predict.by_call(rows)  # type: ignore[attr-defined]
    np.testing.assert_allclose(sum(ms for _, ms in parts), predict(rows))


def test_coefficients_and_traffic_count(space: SearchSpace) -> None:
    plain = made_up_profile(space)
    unit = {name: tuple(float(name == other) for other in FEATURES) for name in FEATURES}
    rows = random_rows(space, 5)

    def feature(name: str) -> np.ndarray:
        return LatencyPrediction(space, replace(plain, features=FEATURES, coefficients=unit[name]))(rows)

    np.testing.assert_allclose(feature("network"), 1.0)
    np.testing.assert_allclose(feature("calls"), len(timed_calls(space)))
    np.testing.assert_allclose(sum(feature(kind) for kind in KINDS), latency_ms(space, profile=plain)(rows))
    convolutions = [c for c in timed_calls(space) if c.kernel.operator == "conv2d"]
    weights = [sum(np.prod([s(tuple(r)) for s in c.weights[0]]) for c in convolutions) for r in rows]
    assert (feature("weights") * 1e6 >= weights).all()
    assert (feature("fused") == 0).all()


def test_what_cannot_be_timed_alone_is_traffic(space: SearchSpace) -> None:
    full = made_up_profile(space)
    norms = {name: None for name in full.tables if name.startswith("batch_norm")}
    profile = full.with_tables(norms)
    values = LatencyPrediction(space, profile).features(random_rows(space, 3))
    assert (values[:, FEATURES.index("norm")] == 0).all()
    assert (values[:, FEATURES.index("fused")] > 0).all()


def test_channels_have_no_fractions(space: SearchSpace) -> None:
    predict = latency_ms(space, profile=made_up_profile(space))
    rows = random_rows(space, 5).astype(float)
    full = np.array(space.full, dtype=float)
    np.testing.assert_array_equal(predict(np.minimum(rows + 0.6, full)), predict(rows))
    assert (predict(full * 0.4) > predict(full * 0.3)).all()


def test_ten_thousand_candidates_per_second(space: SearchSpace) -> None:
    predict = latency_ms(space, profile=made_up_profile(space))
    rows = random_rows(space, 5_000)
    predict(rows[:10])
    started = time.thread_time()
    predict(rows)
    assert 5_000 / (time.thread_time() - started) > 10_000


def test_a_profile_comes_back_from_its_file_as_it_was(space: SearchSpace, tmp_path: Path) -> None:
    profile = made_up_profile(space).with_tables({"odd": None})
    write_profile(profile, tmp_path / "p.json")
    again = read_profile(tmp_path / "p.json")
    assert again.to_json() == profile.to_json()
    rows = random_rows(space, 5)
    np.testing.assert_array_equal(latency_ms(space, profile=again)(rows), latency_ms(space, profile=profile)(rows))
    mapping = json.loads((tmp_path / "p.json").read_text())
    np.testing.assert_array_equal(latency_ms(space, profile=mapping)(rows), latency_ms(space, profile=profile)(rows))


def test_a_profile_that_is_none(space: SearchSpace, tmp_path: Path) -> None:
    for content, told in (("{", "no JSON"), ("[]", "no device profile"), ('{"format": 1}', "incomplete")):
        path = tmp_path / "p.json"
        path.write_text(content)
        with pytest.raises(ConfigError, match=f"{told}.*autoprune latency profile"):
            latency_ms(space, profile=path)
    with pytest.raises(ConfigError, match=r"missing\.json cannot be read.*autoprune latency profile MODEL"):
        latency_ms(space, profile=tmp_path / "missing.json")
    with pytest.raises(ConfigError, match="give a file in a folder that exists"):
        write_profile(made_up_profile(space), tmp_path / "no" / "p.json")


def test_a_profile_without_times_is_refused(space: SearchSpace) -> None:
    profile = made_up_profile(space)
    nothing = replace(profile, tables=dict.fromkeys(profile.tables))
    with pytest.raises(ConfigError, match=r"predicts 0 ms for the full network.*make it anew"):
        latency_ms(space, profile=nothing)


def test_a_profile_takes_the_place_of_files_only(space: SearchSpace, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name, told in (("pipe", "is no regular file"), ("folder", "is a folder; name a file in it")):
        with pytest.raises(ConfigError, match=f"{name} {told}"):
            write_profile(made_up_profile(space), tmp_path / name)
    assert (tmp_path / "pipe").is_fifo()


def _changed(plain: dict[str, Any], path: Sequence[Any], value: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(plain))
    inner: Any = found
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return found


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        (["coefficients"], [1.0], "coefficients are expected, 1 found"),
        (["coefficients"], [0.0] * len(FEATURES), "all coefficients are 0"),
        (["coefficients", 2], float("nan"), "coefficients must be 0 or more"),
        (["coefficients", 2], -1.0, "coefficients must be 0 or more"),
        (["tables", "first", "grids", 0, "ms"], [1.0], "a grid of .* sizes has 1 times"),
        (["tables", "first", "grids", 0, "ms", 0], float("inf"), "times of a grid must be 0 or more"),
        (["tables", "first", "grids", 0, "axes", 0, 0], 1e9, "do not ascend"),
        (["tables", "first", "grids", 0, "ms", 0], "1.0", "sizes and times of a grid are numbers"),
        (["tables", "first", "grids", 0, "axes", 0, 0], "1", "sizes and times of a grid are numbers"),
        (
            ["tables", "first", "grids", 0],
            {"axes": [], "ms": 1.0},
            "a kernel of 1 sizes has a table of 0; make it anew",
        ),
        (["format"], True, "no device profile of format 1 .found True."),
        (["coeficients"], [], "unknown key 'coeficients'. Did you mean 'coefficients'?"),
        (["error"], {"networks": True, "median": 0, "p90": 0, "spearman": 0, "noise": 0}, "not given in numbers"),
        (["error"], {"networks": 9, "median": -5, "p90": 0, "spearman": 0, "noise": 0}, "held out cannot be"),
        (["error"], {"networks": 9, "median": 0, "p90": 0, "spearman": 9, "noise": 0}, "held out cannot be"),
        (["networks", 0, "rounds"], [1.0], "3 times of a network are expected, 2 found"),
        (["networks", 0, "ms"], "fast", "times of a network must be"),
        (["networks", 0], {"model": "resnet20"}, "KeyError: 'features'"),
        (["conditions", "device"], "cuda:x", "device must be cpu, cuda or cuda:N, got 'cuda:x'"),
        (["conditions", "device"], "cpu:7", "device must be cpu, cuda or cuda:N"),
        (["features"], list(reversed(FEATURES)), "made by another version of autoprune; make it anew"),
    ],
)
def test_a_damaged_profile_is_refused(space: SearchSpace, path: list[Any], value: Any, told: str) -> None:
    profile = made_up_profile(space)
    values = [0.1] * len(FEATURES)
    network = {"model": "a", "widths": list(space.full), "features": values, "ms": 1.0, "rounds": [1.0, 1.0]}
    plain = replace(profile, features=FEATURES, coefficients=tuple(values), networks=(network,)).to_json()
    assert (latency_ms(space, profile=plain)(random_rows(space, 2)) > 0).all()
    first = next(name for name, table in profile.tables.items() if table and len(table.grids[0].axes) == 1)
    with pytest.raises(ConfigError, match=told):
        latency_ms(space, profile=_changed(plain, [first if key == "first" else key for key in path], value))


def test_a_profile_of_another_machine_names_both(space: SearchSpace) -> None:
    other = replace(made_up_profile(space), machine="Abacus 3000")
    with pytest.raises(ConfigError, match=f"(?s)Abacus 3000.*{cpu_name()[:5]}"):
        latency_ms(space, profile=other)
    assert (latency_ms(space, profile=other, elsewhere=True)(random_rows(space, 2)) > 0).all()


def test_a_profile_of_other_conditions_names_both(space: SearchSpace) -> None:
    profile = made_up_profile(space)
    assert latency_ms(space, profile=profile, threads=1, backend="torch")
    with pytest.raises(ConfigError, match=r"holds for threads 1 .*but threads 4 is asked for"):
        latency_ms(space, profile=profile, threads=4)
    with pytest.raises(ConfigError, match=r"no setting 'thread'; allowed: profile, elsewhere, backend, threads"):
        latency_ms(space, profile=profile, thread=4)


def test_kernels_that_are_missing_or_too_narrow_are_named(space: SearchSpace) -> None:
    profile = made_up_profile(space)
    norm = next(name for name in profile.tables if name.startswith("batch_norm"))
    less = replace(profile, tables={name: table for name, table in profile.tables.items() if name != norm})
    with pytest.raises(BudgetError, match=r"lacks 1 kernels.*batch_norm.*--add-to FILE"):
        latency_ms(space, profile=less)
    narrow = profile.with_tables({norm: KernelTable(1, (Grid((np.array([1.0, 2.0]),), np.array([1.0, 2.0])),))})
    with pytest.raises(BudgetError, match=r"lacks 1 kernels.*batch_norm"):
        latency_ms(space, profile=narrow)


def test_a_space_without_its_graph_cannot_be_priced() -> None:
    profile = DeviceProfile(Conditions(), cpu_name(), {}, "")
    with pytest.raises(UnpricedError, match="trace the model anew"):
        latency_ms(chain_space([8, 8]), profile=profile)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"threads": 0}, "threads must be a whole number of at least 1, got 0"),
        ({"batch": -1}, "batch must be"),
        ({"dtype": "float23"}, r"float23.*Did you mean 'float32'"),
        ({"device": "tpu"}, "device must be cpu, cuda or cuda:N, got 'tpu'"),
    ],
)
def test_conditions_that_nothing_can_meet(given: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Conditions(**given)  # type: ignore[arg-type]


def test_blocks_that_are_off_take_no_time() -> None:
    model = build_model("resnet20")
    space = autoprune.trace(model, torch.randn(1, 3, 32, 32), options={"blocks": True}, verify=False).search_space
    assert space.presence.blocks
    predict = LatencyPrediction(space, made_up_profile(space))
    index, block = next(iter(space.presence.blocks.items()))
    off = np.array([space.full, space.full])
    off[1, index] = 0
    inside = [(call, ms) for call, ms in predict.by_call(off) if call.layer.startswith(f"{block.name}.")]
    assert inside
    assert all(ms[1] == 0 < ms[0] for _, ms in inside)
    assert predict(off)[1] < predict(off)[0]
    calls = FEATURES.index("calls")
    assert predict.features(off)[1, calls] < predict.features(off)[0, calls]
