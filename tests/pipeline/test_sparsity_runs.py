"""Sparsity trainings through whole runs: proposed, compared, kept, resumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny import regression, write_job
from torch import nn

import autoprune.pipeline.run as run_map
from autoprune.config.job import Job, load_job
from autoprune.errors import ConfigError, EvaluationError, RegistryError
from autoprune.export.safetensors import ARCHITECTURE
from autoprune.pipeline.driver import resume_job, start_job
from autoprune.pipeline.fingerprints import job_fingerprint
from autoprune.report.facts import collect
from autoprune.sparsity import SPARSITY
from autoprune.verdict.record import RunRecord

METHODS = Path(__file__).parents[2] / "configs" / "methods"
BAR = {"name": "bar", "settings": {"lr": 0.2}}
CHANGES: dict[str, Any] = {
    "search.trials": 2,
    "search.allocations": [],
    "verdict.seeds": 2,
    "verdict.protocols": ["fine_tune", "scratch_e"],
    "verdict.latency": False,
    "sparsity": {"methods": ["network_slimming", BAR], "epochs": 2},
    "callbacks": [],
}


def job(folder: Path, **changes: Any) -> Job:
    return load_job(write_job(folder / "job.yaml", CHANGES | changes))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    folder = tmp_path_factory.mktemp("whole")
    return start_job(job(folder), folder / "run", progress="silent")[0]


def scaleless() -> nn.Module:
    """A network without batch norms."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(1152, 10)
    )


def facts(record: RunRecord) -> tuple[Any, ...]:
    arms = [(arm.name, arm.widths, arm.method, arm.start, arm.search_score) for arm in record.arms]
    return arms, [(f.arm, f.protocol, f.seed, f.score) for f in record.finals]


def test_each_method_is_a_proposal_and_an_arm_with_the_same_trainings(finished: RunRecord) -> None:
    arms = {arm.name: arm for arm in finished.arms}
    label = "bar(lr=0.2)"
    assert [(arms[name].method, arms[name].start) for name in ("network_slimming", "bar")] == [
        ("network_slimming", ""),
        (label, "bar"),
    ]
    origins = {trial.origin: trial for trial in finished.trials}
    (limit,) = finished.budget
    for name, origin in (("network_slimming", "network_slimming"), ("bar", label)):
        assert origins[origin].widths == arms[name].widths in finished.space
        assert arms[name].costs["flops"] <= limit["upper"]
        trained = [(f.protocol, f.seed) for f in finished.finals if f.arm == name]
        assert trained == [(p, s) for p in ("fine_tune", "scratch_e") for s in (0, 1)]
        assert (finished.directory / "arms" / name / ARCHITECTURE).is_file()


def test_what_it_cost_and_how_it_compares_is_told(finished: RunRecord) -> None:
    told = finished.provenance["sparsity"]
    assert told["network_slimming"]["passes"] == 2
    assert [told[name]["inherits"] for name in ("network_slimming", "bar")] == [False, True]
    found = collect(finished)
    rows = {(row[0], row[5]): row for row in found.sparsity.rows}
    assert set(rows) == {(n, p) for n in ("network_slimming", "bar") for p in ("fine_tune", "scratch_e")}
    assert rows["bar", "fine_tune"][4] == "its own weights"
    scores = {
        arm: np.array([f.score for f in finished.finals if (f.arm, f.protocol) == (arm, "fine_tune")])
        for arm in ("uniform_all", "uniform_inner", "network_slimming")
        if any(f.arm == arm for f in finished.finals)
    }
    rival = rows["network_slimming", "fine_tune"][6]
    difference = (scores["network_slimming"] - scores[rival]).mean()
    assert rows["network_slimming", "fine_tune"][7].startswith(f"{difference:+.2f}")
    longer = "bar goes on from the weights that its sparsity training left, so it had 2.67 passes"
    assert any(longer in note for note in found.notes)
    assert "Sparsity trainings" in (finished.directory / "report.html").read_text()


def test_the_base_network_stays_and_weights_and_scores_are_kept(finished: RunRecord) -> None:
    base = load_file(finished.directory / "base.safetensors")
    for name in ("network_slimming", "bar"):
        weights = load_file(finished.directory / f"sparsity_{name}.safetensors")
        assert {n: t.shape for n, t in weights.items()} == {n: t.shape for n, t in base.items()}
        assert not all(torch.equal(weights[n], base[n]) for n in base)
        kept = json.loads((finished.directory / f"sparsity_{name}.json").read_text())
        assert [len(scores) for scores in kept["scores"]] == [group.slots for group in finished.space.groups]


def test_the_learning_rate_that_is_kept_is_that_of_the_training(tmp_path: Path) -> None:
    """`implicit` has one of its own."""
    chosen = {"name": "implicit", "settings": {"lr": 0.002}}
    changes = {"sparsity": {"methods": [chosen, "network_slimming"], "epochs": 1}, "verdict.seeds": 0}
    given = job(tmp_path, **changes)
    start_job(given, tmp_path / "run", progress="silent")
    kept = [
        json.loads((tmp_path / "run" / f"sparsity_{name}.json").read_text())["lr"]
        for name in ("implicit", "network_slimming")
    ]
    assert kept == [0.002, pytest.approx(0.1 * given.training.lr)]


def test_a_run_that_was_stopped_ends_as_if_it_had_not(
    finished: RunRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise EvaluationError("stopped")

    monkeypatch.setattr(run_map, "search", stop)
    with pytest.raises(EvaluationError, match="stopped"):
        start_job(job(tmp_path), tmp_path / "run", progress="silent")
    monkeypatch.undo()
    (tmp_path / "run" / "sparsity_bar.safetensors").unlink()  # made again, the same
    before = (tmp_path / "run" / "sparsity_network_slimming.json").read_text()
    record = resume_job(tmp_path / "run", progress="silent")[0]
    assert facts(record) == facts(finished)
    assert (tmp_path / "run" / "sparsity_network_slimming.json").read_text() == before


def test_jobs_without_are_as_they_were(tmp_path: Path) -> None:
    plain = load_job(write_job(tmp_path / "plain.yaml"))
    assert "sparsity" not in plain.model_dump(mode="json")
    assert job_fingerprint(plain) != job_fingerprint(job(tmp_path))
    listed = job(tmp_path, sparsity=["sss"])
    assert [method.name for method in listed.sparsity.methods] == ["sss"]


def test_what_cannot_be_is_told_before_anything_is_written(tmp_path: Path) -> None:
    unknown = job(tmp_path, sparsity=["network_sliming"])
    with pytest.raises(RegistryError, match=r"unknown sparsity training .*Did you mean 'network_slimming'"):
        start_job(unknown, tmp_path / "run", progress="silent")
    misspelt = job(tmp_path, sparsity=[{"name": "sss", "settings": {"wieght": 1}}])
    with pytest.raises(ConfigError, match=r"sparsity training 'sss' has no setting 'wieght'"):
        start_job(misspelt, tmp_path / "run", progress="silent")
    scales = job(tmp_path, sparsity=["network_slimming"], model={"factory": "test_sparsity_runs:scaleless"})
    with pytest.raises(ConfigError, match=r"no batch norm scales a channel .*sss, bar, group_lasso"):
        start_job(scales, tmp_path / "run", progress="silent")
    with pytest.raises(ConfigError, match=r"sparsity names 'sss', .* trains in a way of its own"):
        regression(tmp_path / "run", sparsity=["sss"])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", SPARSITY.names())
def test_each_method_has_a_job_of_its_name(name: str) -> None:
    found = load_job(METHODS / f"{name}.yaml")
    assert found.name == name
    assert [method.name for method in found.sparsity.methods] == [name]
    assert found.verdict.seeds >= 3


def test_whole_blocks_are_found_and_the_search_goes_on_from_them(tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "model": {"factory": "resnet20", "arguments": {"in_channels": 1, "width": 0.25, "shortcut": "projection"}},
        "space": {"blocks": True},
        "sparsity": {"methods": [{"name": "sss", "settings": {"weight": 0.05, "blocks": True}}], "epochs": 1},
        "verdict.seeds": 0,
    }
    record = start_job(job(tmp_path, **changes), tmp_path / "run", progress="silent")[0]
    kept = json.loads((tmp_path / "run" / "sparsity_sss.json").read_text())["scores"]
    blocks = [number for number, group in enumerate(record.space.groups) if group.kind == "blocks"]
    assert len(blocks) == 7
    scales = [kept[number] for number in blocks]
    assert all(len(scale) == 1 for scale in scales)
    assert len({scale[0] for scale in scales}) == 7, "each has a scale of its own"
    (found,) = (trial for trial in record.trials if trial.origin.startswith("sss"))
    assert found.widths in record.space
