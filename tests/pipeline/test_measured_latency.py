"""Runs measure winner, uniform and unpruned network for their report, and no trial depends on it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from tiny import Perceptron, perceptron, regression, write_job
from torch import Tensor

import autoprune
from autoprune.config.job import load_job
from autoprune.config.latency import LatencyOptions
from autoprune.errors import AutopruneError, ConfigError
from autoprune.latency import measure as measuring
from autoprune.pipeline.changes import changed_keys, told
from autoprune.pipeline.fingerprints import job_fingerprint
from autoprune.pipeline.phases import measured_latency
from autoprune.pipeline.phases.context import RunContext
from autoprune.trials.run_directory import RunDirectory
from autoprune.verdict.record import read_record

SHORT = {"seconds": 1e-9}


def run(folder: Path, latency: Any = True, **changes: Any) -> autoprune.SearchResult:
    verdict = {"seeds": 1, "fine_tune_epochs": 1, "random_candidates": 1, "latency": latency}
    return regression(folder, verdict=verdict, **changes)


def test_the_networks_of_the_verdict_are_measured_in_turns_with_their_spread(tmp_path: Path) -> None:
    result = run(tmp_path / "run", SHORT)
    found = json.loads((tmp_path / "run" / "measured_latency.json").read_text())["networks"]
    uniform = [arm.name for arm in result.baselines if arm.name.startswith("uniform")]
    assert list(found) == ["winner", *uniform, "unpruned"]
    for latency in found.values():
        low, high = latency["quartiles"]
        assert 0 < latency["quiet"] <= low <= latency["ms"] <= high
        assert latency["repeats"] == 5, "one turn of each: no time was given for more"
        assert latency["conditions"]["device"] == "cpu"
    assert read_record(tmp_path / "run").measured == {"networks": found}
    assert "Measured latency (cpu, torch, 1 thread" in (tmp_path / "run" / "report.md").read_text()


def test_more_time_gives_more_repeats(tmp_path: Path) -> None:
    found = run(tmp_path / "run", {"seconds": 60}).record.measured
    assert found is not None
    assert {latency["repeats"] for latency in found["networks"].values()} == {measuring.LEAST_REPEATS}


def test_it_changes_no_trial_and_can_be_switched_off(tmp_path: Path) -> None:
    on, off = run(tmp_path / "on", SHORT), run(tmp_path / "off", False)
    assert off.record.measured is None
    assert not (tmp_path / "off" / "measured_latency.json").exists()
    trials = [[(trial.widths, trial.score) for trial in result.trials] for result in (on, off)]
    assert trials[0] == trials[1]
    assert [final.score for final in on.record.finals] == [final.score for final in off.record.finals]
    assert "latency: false" in (tmp_path / "off" / "job.yaml").read_text()


def test_jobs_that_do_not_say_it_keep_their_fingerprint(tmp_path: Path) -> None:
    plain, said = (
        load_job(write_job(tmp_path / f"{name}.yaml", changes))
        for name, changes in (("plain", {}), ("said", {"verdict.latency": True}))
    )
    assert "latency" not in plain.model_dump()["verdict"]
    assert job_fingerprint(plain) == job_fingerprint(said)
    off = load_job(write_job(tmp_path / "off.yaml", {"verdict.latency": False}))
    assert job_fingerprint(off) != job_fingerprint(plain)
    (tmp_path / "again.yaml").write_text(off.text)
    assert load_job(tmp_path / "again.yaml").verdict.latency is None


def test_what_a_run_goes_on_with_names_the_default(tmp_path: Path) -> None:
    plain, off, other = (
        load_job(write_job(tmp_path / "job.yaml", {"verdict.latency": latency} if latency is not None else {}))
        for latency in (None, False, {"threads": 2})
    )
    assert told(changed_keys(plain, off)) == "verdict.latency True → False"
    assert told(changed_keys(off, plain)) == "verdict.latency False → True"
    assert changed_keys(plain, other)["verdict.latency"][0] is True
    assert changed_keys(plain, plain) == {}


def test_a_resumed_run_measures_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(tmp_path / "run", SHORT).record.measured
    (tmp_path / "run" / "result.json").unlink()

    def refused(*_: object, **__: object) -> None:
        raise AssertionError("measured twice")

    monkeypatch.setattr(measured_latency, "measure_many", refused)
    assert run(tmp_path / "run", SHORT, resume=True).record.measured == first


class Moody(Perceptron):
    """Does not run in inference mode, as nothing but a measurement runs it."""

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_inference_mode_enabled():
            raise RuntimeError("not in this mode")
        return super().forward(x)


def test_a_network_that_cannot_be_measured_costs_the_table_and_not_the_run(tmp_path: Path) -> None:
    model = Moody()
    model.load_state_dict(perceptron().state_dict())
    result = run(tmp_path / "run", True, model=model)
    assert result.verdict is not None
    assert result.record.measured is not None
    assert "RuntimeError: not in this mode" in result.record.measured["error"]
    assert "Latency was not measured: " in (tmp_path / "run" / "report.md").read_text()


def test_a_measurement_that_is_refused_does_not_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object, **__: object) -> None:
        raise ConfigError("no such device")

    monkeypatch.setattr(measured_latency, "measure_many", failing)
    notes: list[str] = []
    job = SimpleNamespace(verdict=SimpleNamespace(latency=LatencyOptions()))
    task = SimpleNamespace(device=torch.device("cpu"))
    context = SimpleNamespace(
        job=job,
        task=task,
        domain=SimpleNamespace(space=SimpleNamespace(full=(16, 12))),
        prepared=SimpleNamespace(run_inputs=SimpleNamespace(example=None)),
        progress=SimpleNamespace(note=notes.append),
    )
    with RunDirectory.create(tmp_path / "run") as directory:
        context.directory = directory
        factory: Any = SimpleNamespace(candidate=lambda widths: None)
        found = measured_latency.measure_latency(cast("RunContext", context), [], factory)
    assert found == {"error": "no such device"}
    assert notes == ["latency is not in the report: no such device"]


@pytest.mark.parametrize(
    ("latency", "message"),
    [
        ({"backend": "tensorrt"}, "unknown latency backend 'tensorrt'; choose one of torch"),
        ({"dtype": "int8"}, "dtype must be one of float32, float16, bfloat16, got 'int8'"),
        ({"thread": 2}, r"unknown key 'verdict.latency.thread'. Did you mean 'threads'\?"),
        ({"threads": 0}, "verdict.latency.threads: input should be greater than or equal to 1, got 0"),
        ({"seconds": 0}, "verdict.latency.seconds: input should be greater than 0, got 0"),
        ("fast", "verdict.latency: must hold keys"),
        (3, "verdict.latency: must hold keys"),
    ],
)
def test_wrong_conditions_are_refused_before_anything_is_written(latency: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        run(tmp_path / "run", latency)
    assert not (tmp_path / "run").exists()


def test_a_package_that_is_missing_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(AutopruneError, match=r"pip install 'autoprune\[onnx\]'"):
        run(tmp_path / "run", {"backend": "onnxruntime"})
    assert not (tmp_path / "run").exists()
