"""Whole runs over densities: search, verdict, export, and what is left in every network that comes out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from tiny import X, closeness, fit, perceptron, regression, same_weights, write_job
from torch import nn

import autoprune
from autoprune.config.job import load_job
from autoprune.errors import BudgetError, ConfigError
from autoprune.pipeline import driver
from autoprune.pipeline.driver import start_job
from autoprune.space.cutting.masks import counted

DENSITY: dict[str, Any] = {"density": {"steps": 16, "min_density": 0.05}}
CHANGES: dict[str, Any] = {
    "space": DENSITY,
    "constraints": {"params": "40%"},
    "search.criterion": "wanda",
    "search.allocations": ["erk", "lamp", "owl"],
    "verdict.latency": False,
}


def left(network: nn.Module) -> int:
    """Weights that are not 0, of layers that have a density; all parameters of others."""
    masked = set(counted(network))
    return sum(int((p != 0).sum()) if n in masked else p.numel() for n, p in network.named_parameters())


def ran(folder: Path, changes: dict[str, Any]) -> Any:
    job = load_job(write_job(folder / "job.yaml", {**CHANGES, **changes}))
    (record,) = start_job(job, folder / "run", progress="silent")
    return record


@pytest.mark.parametrize(
    "changes",
    [
        {"verdict.protocols": ["fine_tune", "gradual", "no_training", {"name": "lottery", "settings": {"rounds": 2}}]},
        {
            "training": {"epochs": 1, "terms": [{"name": "rigl", "settings": {"interval": 1}}], "ema": 0.9},
            "verdict.protocols": ["scratch_e"],
        },
        {"space": {"density": {"pattern": "N:4", "layers": ["conv2", "head"]}}, "search.criterion": "obs"},
        {"search.evaluator": {"name": "short_training", "settings": {"steps": 2, "lr": 0.01}}},
        {"constraints": {"flops": "30%", "size_mb": "60%"}, "search.evaluator": {"name": "zero_cost"}},
    ],
    ids=["protocols", "rigl", "N:4", "short_training", "zero_cost"],
)
def test_what_is_exported_has_the_weights_that_its_costs_count(tmp_path: Path, changes: dict[str, Any]) -> None:
    record = ran(tmp_path, changes)
    export = tmp_path / "run" / "export"
    told = yaml.safe_load((export / "architecture.yaml").read_text())
    network = autoprune.load(export, packages=["tiny"])
    assert counted(network)
    assert left(network) <= told["costs"]["params"]
    assert left(network) >= 0.98 * told["costs"]["params"]  # a weight may be 0 by chance, or has just grown
    domain = record.space.by_name(record.winner.widths)
    assert {name: entry["kept"] for name, entry in told["widths"].items()} == domain
    assert {arm.name for arm in record.arms} >= {"winner", "uniform_all"}
    for name, limit in record.job["constraints"].items():
        assert record.winner.costs[name] <= float(limit[:-1]) / 100 * record.full_costs[name] + 1e-9
    assert (
        "ranking" not in json.loads((export / "space.json").read_text())
        or not json.loads((export / "space.json").read_text())["ranking"]
    )


def test_a_run_goes_on_where_it_was_and_ends_with_the_same(tmp_path: Path) -> None:
    whole = ran(tmp_path, {})
    second = tmp_path / "second"
    second.mkdir()
    ran(second, {"search.trials": 1, "verdict.seeds": 0})
    (resumed,) = driver.resume_job(second / "run", progress="silent", changes={"search.trials": 3, "verdict.seeds": 1})
    assert resumed.winner.widths == whole.winner.widths
    one, other = (autoprune.load(folder / "run" / "export", packages=["tiny"]) for folder in (tmp_path, second))
    assert same_weights(one, other)


def test_trainings_of_the_users_own_leave_masks_as_they_are_and_the_model_untouched(tmp_path: Path) -> None:
    model = perceptron()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    seen: list[float] = []

    def watched(network: nn.Module, epochs: int, seed: int) -> None:
        fit(network, epochs, seed)
        seen.append(left(network) / sum(p.numel() for p in network.parameters()))

    given = {"space": DENSITY, "constraints": {"params": "50%"}, "data": [X], "criterion": "magnitude"}
    result = regression(tmp_path / "run", model, train_func=watched, trained=True, **given)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert seen
    assert max(seen) <= 0.5  # Adam moved no weight that is left out
    network = result.network()
    assert left(network) == result.space.cost(result.widths)["params"]
    assert closeness(network) == pytest.approx(closeness(autoprune.load(tmp_path / "run" / "export", model=model)))


def test_what_densities_cannot_do_is_told_before_anything_is_written(tmp_path: Path) -> None:
    for changes, error, told in (
        ({"search.inherit": ["least_squares"]}, ConfigError, "least_squares is for channels that are cut"),
        ({"search.criterion": "apoz"}, ConfigError, "a density leaves single weights out"),
        ({"search.allocations": ["cluster_count"]}, ConfigError, "compares the filters of channels"),
        (
            {"search.evaluator": {"name": "supernet"}},
            ConfigError,
            "bits or resolutions has none",
        ),
        ({"constraints": {"params": "1%"}}, BudgetError, "params"),
        ({"constraints": {"peak_memory_mb": "50%"}}, BudgetError, "peak_memory_mb"),
        ({"sparsity": ["sss"]}, ConfigError, "'sss' finds widths of channels"),
        ({"space": {"density": {}, "per": "stage"}}, ConfigError, "per would say nothing"),
    ):
        with pytest.raises(error, match=told):
            ran(tmp_path, changes)
        assert not (tmp_path / "run").exists()


def test_ranks_are_searched_and_exported_as_layers_of_two(tmp_path: Path) -> None:
    record = ran(tmp_path, {"space": {"rank": {}}, "constraints": {"flops": "60%"}, "search.allocations": ["erk"]})
    network = autoprune.load(tmp_path / "run" / "export", packages=["tiny"])
    assert sum(p.numel() for p in network.parameters()) == record.winner.costs["params"]
    assert any(name.endswith(".first.weight") for name in network.state_dict())
    for changes, told in (
        ({"verdict.protocols": ["gradual"]}, "a rank is chosen before"),
        ({"search.inherit": ["sparsegpt"]}, "sparsegpt fits the layers of the dense network"),
        ({"search.evaluator": {"name": "supernet"}}, "densities, ranks, bits or resolutions has none"),
        ({"sparsity": ["csgd"]}, "'csgd' finds widths of channels"),
    ):
        folder = tmp_path / told[:5]
        folder.mkdir()
        with pytest.raises(ConfigError, match=told):
            ran(folder, {"space": {"rank": {}}, "constraints": {"flops": "60%"}, "search.allocations": [], **changes})
        assert not (folder / "run").exists()


def test_uniform_arms_have_one_density(tmp_path: Path) -> None:
    record = ran(tmp_path, {"verdict.seeds": 0})
    uniform = next(arm for arm in record.arms if arm.name == "uniform_all")
    ratios = np.array(uniform.widths) / np.array(record.space.full)
    assert np.ptp(ratios) <= 0.15
