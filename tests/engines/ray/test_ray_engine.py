"""Whole runs on Ray: the same trials, final trainings and verdict as locally, and what run.json tells."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_search import gist
from safetensors.torch import load_file
from tiny import Convolutions, closeness, pictures, regression, write_job

import autoprune
from autoprune.config.job import load_job
from autoprune.controllers.base import TrialState
from autoprune.pipeline import driver
from autoprune.trials.session import SearchSession
from autoprune.zoo import build_model

ray = pytest.importorskip("ray")

WORKER = {"name": "ray", "workers": 1}


@pytest.fixture(scope="module")
def instance() -> Iterator[None]:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


def outcome(result: autoprune.SearchResult) -> list[object]:
    """What two equal runs share."""
    record = result.record
    finals = [(f.arm, f.protocol, f.seed, f.epochs, f.score) for f in record.finals]
    return [gist(record.trials), record.winner, record.uniform_curve, finals, record.verdict]


def told(directory: Path) -> Any:
    return json.loads((directory / "run.json").read_text())["engine"]


def test_a_run_from_python_is_the_same_and_is_resumed_on_another_engine(
    instance: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = regression(tmp_path / "here")
    ask, asked = SearchSession.ask, 0

    def interrupted(session: SearchSession) -> Any:
        nonlocal asked
        asked += 1
        if asked == 3:
            raise KeyboardInterrupt
        return ask(session)

    monkeypatch.setattr(SearchSession, "ask", interrupted)
    with pytest.raises(KeyboardInterrupt):
        regression(tmp_path / "there")
    monkeypatch.undo()
    assert told(tmp_path / "there") == {"name": "local", "workers": 1}
    there = regression(tmp_path / "there", resume=True, engine=WORKER)
    assert outcome(there) == outcome(here)
    assert told(tmp_path / "there") == WORKER
    assert closeness(there.model) == closeness(here.model), "the winner's weights came back"
    assert "Evaluations ran on ray with 1 worker" in (tmp_path / "there" / "report.md").read_text()
    again = regression(tmp_path / "there", resume=True)
    assert outcome(again) == outcome(here)


@pytest.mark.slow
def test_a_family_from_a_job_file_is_the_same_on_two_workers_but_for_the_order(instance: None, tmp_path: Path) -> None:
    changes = {"constraints.flops": ["60%", "40%"], "search.trials": 4, "verdict.seeds": 0}
    file = write_job(tmp_path / "job.yaml", changes)
    here = driver.start_job(load_job(file), tmp_path / "here", progress="silent")
    file = write_job(tmp_path / "job.yaml", changes | {"engine": {"name": "ray", "workers": 2}})
    there = driver.start_job(load_job(file), tmp_path / "there", progress="silent")
    assert [[(t.widths, t.score) for t in run.trials] for run in there] == [
        [(t.widths, t.score) for t in run.trials] for run in here
    ], "random proposals do not depend on the order in which scores come"
    assert [run.winner for run in there] == [run.winner for run in here]
    assert load_job(tmp_path / "there" / "job.yaml").engine.workers == 2
    assert told(tmp_path / "there" / "2-flops-40")["name"] == "ray"


@pytest.mark.slow
def test_trainings_go_the_other_way_and_are_the_same(instance: None, tmp_path: Path) -> None:
    data = {"train": pictures(64, 0), "validation": pictures(32, 1)}
    given: dict[str, Any] = {
        "constraints": {"flops": "50%"},
        "data": data,
        "trained": False,
        "trials": 1,
        "controller": "random",
        "evaluator": {"name": "scratch", "settings": {"epochs": 2}},
        "training": {"epochs": 1, "batch_size": 16},
        "verdict": {"seeds": 0, "random_candidates": 1},
        "progress": "silent",
        "device": "cpu",
    }
    torch.manual_seed(0)
    model = Convolutions(classes=4)
    here = autoprune.search(model, torch.zeros(1, 1, 8, 8), run_dir=tmp_path / "here", **given)
    there = autoprune.search(model, torch.zeros(1, 1, 8, 8), run_dir=tmp_path / "there", engine=WORKER, **given)
    assert outcome(there) == outcome(here)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize(("first", "then"), [(WORKER, "local"), ("local", WORKER)], ids=["from ray", "to ray"])
def test_early_stopping_goes_on_on_the_other_engine(
    instance: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: Any, then: Any
) -> None:
    given: dict[str, Any] = {
        "constraints": {"flops": "50%"},
        "data": {"train": pictures(64, 0), "validation": pictures(64, 1)},
        "trained": False,
        "trials": 16,
        "controller": "random",
        "evaluator": {"name": "scratch", "settings": {"epochs": 9}},
        "training": {"epochs": 1, "batch_size": 16},
        "verdict": {"seeds": 0, "random_candidates": 1},
        "progress": "silent",
        "device": "cpu",
        "run_dir": tmp_path / "run",
    }
    torch.manual_seed(0)
    model = build_model("resnet20", {"in_channels": 1, "classes": 4, "width": 0.25})
    example, ask, asked = torch.zeros(1, 1, 8, 8), SearchSession.ask, 0

    def interrupted(session: SearchSession) -> Any:
        nonlocal asked
        asked += 1
        if asked == 9:
            raise KeyboardInterrupt
        return ask(session)

    monkeypatch.setattr(SearchSession, "ask", interrupted)
    with pytest.raises(KeyboardInterrupt):
        autoprune.search(model, example, engine=first, early_stopping="asha", **given)
    monkeypatch.undo()
    ended = autoprune.search(model, example, engine=then, resume=True, **given)
    trials = ended.record.trials  # type: ignore[attr-defined]
    after = [trial for trial in trials if trial.number >= 9 and trial.origin == "controller"]
    stopped = [trial for trial in after if trial.state is TrialState.PRUNED]
    assert len(after) > len(stopped) > 0
    assert {round(9 * trial.fidelity) for trial in stopped} <= {1, 3}
    assert told(tmp_path / "run")["name"] == (then if then == "local" else "ray")
    assert load_job(tmp_path / "run" / "job.yaml").search.early_stopping == "asha"


def test_a_search_whose_time_is_over_concludes_on_ray_and_goes_on_here(instance: None, tmp_path: Path) -> None:
    short = regression(tmp_path / "run", engine={"name": "ray", "workers": 2}, time_budget=1e-9)
    origins = [trial.origin for trial in short.trials]
    assert set(origins) - {"random_baseline"} == {"uniform_all", "uniform_inner", "global_threshold"}
    assert short.verdict is not None
    planned = regression(tmp_path / "planned")
    longer = regression(tmp_path / "run", resume=True)
    assert [trial.widths for trial in longer.trials] == [trial.widths for trial in planned.trials]


@pytest.mark.slow
def test_a_search_in_rungs_is_the_same_and_the_report_tells_them(instance: None, tmp_path: Path) -> None:
    data = {"train": pictures(64, 0), "validation": pictures(64, 1)}
    steps = [
        "zero_cost",
        {"name": "scratch", "settings": {"epochs": 1}},
        {"name": "scratch", "settings": {"epochs": 2}},
    ]
    given: dict[str, Any] = {
        "constraints": {"flops": "50%"},
        "data": data,
        "trained": False,
        "trials": 8,
        "controller": "random",
        "evaluator": {"name": "chain", "settings": {"steps": steps, "keep": [0.5, 0.5]}},
        "training": {"epochs": 1, "batch_size": 16},
        "verdict": {"seeds": 0, "random_candidates": 1},
        "progress": "silent",
        "device": "cpu",
    }
    torch.manual_seed(0)
    model = build_model("resnet20", {"in_channels": 1, "classes": 4, "width": 0.25})
    here = autoprune.search(model, torch.zeros(1, 1, 8, 8), run_dir=tmp_path / "here", **given)
    there = autoprune.search(model, torch.zeros(1, 1, 8, 8), run_dir=tmp_path / "there", engine=WORKER, **given)
    assert outcome(there) == outcome(here)
    for one, other in zip(here.record.trials, there.record.trials, strict=True):
        assert np.array(other.partial) == pytest.approx(np.array(one.partial))
        assert (other.rungs, other.fidelity) == (one.rungs, pytest.approx(one.fidelity))
    trials = [trial for trial in there.record.trials if trial.rungs]  # not those whose widths had a score
    assert {len(trial.partial) for trial in trials if trial.state is TrialState.PRUNED} <= {1, 2}
    assert any(trial.at_rung for trial in trials)
    assert all(len(trial.partial) == 2 for trial in trials if trial.origin != "controller"), "baselines go on"
    report = (tmp_path / "there" / "report.md").read_text()
    assert f"Scored in rungs: {len(trials)} by zero_cost, " in report


@pytest.mark.slow
def test_sparsity_trainings_are_the_same_on_ray_and_their_weights_come_back(instance: None, tmp_path: Path) -> None:
    """Methods with gates, with a state from step to step, and with widths alone; two at a time."""
    methods = ["network_slimming", {"name": "bar", "settings": {"lr": 0.2}}, "csgd", "half_space"]
    changes: dict[str, Any] = {
        "search.trials": 2,
        "search.allocations": [],
        "verdict.seeds": 2,
        "verdict.protocols": ["fine_tune"],
        "verdict.latency": False,
        "sparsity": {"methods": methods, "epochs": 2},
        "callbacks": [],
    }
    job = load_job(write_job(tmp_path / "job.yaml", changes))
    on_ray = load_job(write_job(tmp_path / "ray.yaml", {**changes, "engine": {"name": "ray", "workers": 2}}))
    (here,) = driver.start_job(job, tmp_path / "here", progress="silent")
    (there,) = driver.start_job(on_ray, tmp_path / "there", progress="silent")
    assert told(tmp_path / "there")["name"] == "ray"
    names = ["network_slimming", "bar", "csgd", "half_space"]
    arms = [[(arm.name, arm.widths, arm.start) for arm in record.arms if arm.method] for record in (here, there)]
    assert [name for name, _, _ in arms[0]] == names
    assert arms[0] == arms[1]
    assert there.verdict == here.verdict
    assert there.verdict is not None
    for name in names:
        weights = [
            load_file(folder / f"sparsity_{name}.safetensors") for folder in (tmp_path / "here", tmp_path / "there")
        ]
        assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
        scores = [[f.score for f in record.finals if f.arm == name] for record in (here, there)]
        assert len(scores[0]) == 2
        assert scores[0] == scores[1]
