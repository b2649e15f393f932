"""Whole runs over bits, alone and beside widths: search, verdict, export, and what comes out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tiny import X, closeness, fit, perceptron, regression, same_weights, write_job

import autoprune
from autoprune.config.job import load_job
from autoprune.errors import BudgetError, ConfigError
from autoprune.pipeline import driver
from autoprune.pipeline.driver import start_job
from autoprune.space.cutting.rounded import bits_of, rounded

CHANGES: dict[str, Any] = {
    "space": {"bits": {}},
    "constraints": {"size_mb": "22%"},
    "search.allocations": ["global_threshold", "knapsack", "erk"],
    "verdict.latency": False,
}
JOINT: dict[str, Any] = {"space": {"bits": {"widths": True}}, "constraints": {"size_mb": "12%"}}


def ran(folder: Path, changes: dict[str, Any]) -> Any:
    folder.mkdir(exist_ok=True)
    job = load_job(write_job(folder / "job.yaml", {**CHANGES, **changes}))
    (record,) = start_job(job, folder / "run", progress="silent")
    return record


@pytest.mark.parametrize(
    "changes",
    [
        {"verdict.protocols": ["fine_tune", "scratch_e", "no_training"]},
        {"search.evaluator": {"name": "short_training", "settings": {"steps": 2, "lr": 0.01}}},
        {**JOINT, "verdict.protocols": ["fine_tune"], "training": {"epochs": 1, "ema": 0.5}},
        {**JOINT, "verdict.seeds": 0, "search.inherit": ["least_squares", "bn_recalibration"]},
    ],
    ids=["protocols", "short_training", "joint", "joint_not_trained"],
)
def test_what_is_exported_is_rounded_as_its_size_says(tmp_path: Path, changes: dict[str, Any]) -> None:
    record = ran(tmp_path, changes)
    export = tmp_path / "run" / "export"
    told = yaml.safe_load((export / "architecture.yaml").read_text())
    network = autoprune.load(export, packages=["tiny"])
    kept, size = bits_of(network), 0
    for name, tensor in network.state_dict().items():
        size += tensor.numel() * kept[name] + 32 * len(tensor) if name in kept else 8 * tensor.nbytes
        assert name not in kept or torch.equal(rounded(tensor, kept[name]), tensor)
    assert kept
    assert size / 8e6 == pytest.approx(told["costs"]["size_mb"], abs=1e-12)
    limit = float(record.job["constraints"]["size_mb"][:-1]) / 100
    assert told["costs"]["size_mb"] <= limit * record.full_costs["size_mb"]
    assert {arm.name for arm in record.arms} >= {"winner", "uniform_all"}
    assert (record.verdict is None) == (changes.get("verdict.seeds") == 0)


def test_a_run_goes_on_where_it_was_and_ends_with_the_same(tmp_path: Path) -> None:
    whole = ran(tmp_path / "whole", {})
    ran(tmp_path / "second", {"search.trials": 1, "verdict.seeds": 0})
    changes = {"search.trials": 3, "verdict.seeds": 1}
    (resumed,) = driver.resume_job(tmp_path / "second" / "run", progress="silent", changes=changes)
    assert resumed.winner.widths == whole.winner.widths
    folders = (tmp_path / "whole", tmp_path / "second")
    one, other = (autoprune.load(folder / "run" / "export", packages=["tiny"]) for folder in folders)
    assert same_weights(one, other)


def test_trainings_of_the_users_own_are_rounded_when_they_are_done(tmp_path: Path) -> None:
    model = perceptron()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    given = {"space": {"bits": {}}, "constraints": {"size_mb": "30%"}, "data": [X]}
    result = regression(tmp_path / "run", model, train_func=fit, trained=True, **given)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    loaded = autoprune.load(tmp_path / "run" / "export", model=model)
    for network in (result.network(), loaded):
        kept = bits_of(network)
        assert kept
        assert all(
            torch.equal(rounded(network.state_dict()[name], bits), network.state_dict()[name])
            for name, bits in kept.items()
        )
    assert closeness(loaded) == closeness(result.network())


def test_what_bits_cannot_do_is_told_before_anything_is_written(tmp_path: Path) -> None:
    for changes, error, told in (
        ({"search.inherit": ["least_squares"]}, ConfigError, "bits cut nothing"),
        ({"verdict.protocols": ["gradual"]}, ConfigError, "bits are chosen before"),
        ({**JOINT, "verdict.protocols": ["gradual"]}, ConfigError, "bits are chosen before"),
        ({"search.evaluator": {"name": "supernet"}}, ConfigError, "densities, ranks, bits or resolutions has none"),
        ({"search.allocations": ["cluster_count"]}, ConfigError, "bits do not cut"),
        ({"constraints": {"flops": "50%"}}, BudgetError, "flops"),
        ({"constraints": {"size_mb": "3%"}}, BudgetError, "size_mb"),
    ):
        with pytest.raises(error, match=told):
            ran(tmp_path, changes)
        assert not (tmp_path / "run").exists()
