"""Whole runs over resolutions beside widths: search, verdict, export, and going on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tiny import same_weights, write_job

import autoprune
from autoprune.config.job import load_job
from autoprune.errors import BudgetError, ConfigError
from autoprune.pipeline import driver
from autoprune.pipeline.driver import start_job
from autoprune.space.cutting.resized import ResizedImages
from autoprune.space.verification.flop_check import counted_by_fvcore

CHANGES: dict[str, Any] = {
    "space": {"resolution": {"divisor": 4}},
    "constraints": {"flops": "50%"},
    "verdict.latency": False,
}


def ran(folder: Path, changes: dict[str, Any]) -> Any:
    folder.mkdir(exist_ok=True)
    job = load_job(write_job(folder / "job.yaml", {**CHANGES, **changes}))
    (record,) = start_job(job, folder / "run", progress="silent")
    return record


@pytest.mark.parametrize(
    "changes",
    [
        {"verdict.protocols": ["fine_tune", "scratch_e"]},
        {"search.evaluator": {"name": "inherited", "settings": {"form": "fast"}}},
        {"search.evaluator": {"name": "short_training", "settings": {"steps": 2, "lr": 0.01}}},
    ],
    ids=["protocols", "fast", "short_training"],
)
def test_exports_see_images_as_the_winner_did(tmp_path: Path, changes: dict[str, Any]) -> None:
    record = ran(tmp_path, changes)
    export = tmp_path / "run" / "export"
    told = yaml.safe_load((export / "architecture.yaml").read_text())
    side = told["widths"]["resolution"]["kept"]
    assert record.space.by_name(record.winner.widths)["resolution"] == side
    height = record.space.resolution.shape[0]
    image = torch.randn(1, 1, *record.space.resolution.shape)
    for network in (
        autoprune.load(export, packages=["tiny"]),
        autoprune.load(export / "architecture.yaml", packages=["tiny"]),
    ):
        resized = [hook.size for hook in network._forward_pre_hooks.values() if isinstance(hook, ResizedImages)]
        assert resized == ([] if side == height else [record.space.resolution.size(side)])
        assert counted_by_fvcore(network, image) == told["costs"]["flops"]
    assert told["costs"]["flops"] <= 0.5 * record.full_costs["flops"]
    assert {arm.name for arm in record.arms} >= {"winner", "uniform_all"}
    uniform = next(arm for arm in record.arms if arm.name == "uniform_all")
    assert record.space.by_name(uniform.widths)["resolution"] == height


def test_a_run_goes_on_where_it_was_and_ends_with_the_same(tmp_path: Path) -> None:
    whole = ran(tmp_path / "whole", {})
    ran(tmp_path / "second", {"search.trials": 1, "verdict.seeds": 0})
    changes = {"search.trials": 3, "verdict.seeds": 1}
    (resumed,) = driver.resume_job(tmp_path / "second" / "run", progress="silent", changes=changes)
    assert resumed.winner.widths == whole.winner.widths
    folders = (tmp_path / "whole", tmp_path / "second")
    one, other = (autoprune.load(folder / "run" / "export", packages=["tiny"]) for folder in folders)
    assert same_weights(one, other)


def test_what_resolutions_cannot_do_is_told_before_anything_is_written(tmp_path: Path) -> None:
    for changes, error, told in (
        ({"verdict.protocols": ["gradual"]}, ConfigError, "a resolution is chosen before"),
        ({"search.evaluator": {"name": "supernet"}}, ConfigError, "bits or resolutions has none"),
        ({"search.evaluator": {"name": "fbs"}}, ConfigError, "'resolution' is one of resolution"),
        ({"constraints": {"peak_memory_mb": "50%"}}, BudgetError, "known at one size of images only"),
    ):
        with pytest.raises(error, match=told):
            ran(tmp_path, changes)
        assert not (tmp_path / "run").exists()
