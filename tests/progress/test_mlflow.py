"""The MLflow callback against a tracking server in memory that is as strict as MLflow's own."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import pytest

from autoprune.errors import ConfigError
from autoprune.progress.callbacks import PhaseEnded
from autoprune.progress.mlflow import MLflow
from autoprune.testing.callbacks import CallbackContract, Make, run_ended, run_started, trial_ended


class Metric(NamedTuple):
    key: str
    value: float
    timestamp: int
    step: int


class Param(NamedTuple):
    key: str
    value: str


class RunTag(NamedTuple):
    key: str
    value: str


@dataclass
class Run:
    experiment: str
    tags: dict[str, str]
    name: str
    status: str = "RUNNING"
    params: dict[str, str] = field(default_factory=dict)
    metrics: list[tuple[str, int, float]] = field(default_factory=list)


class Server:
    """What is kept, whoever logs."""

    def __init__(self) -> None:
        self.experiments: dict[str, str] = {}
        self.runs: dict[str, Run] = {}
        self.uris: list[str | None] = []

    def client(self, tracking_uri: str | None = None) -> Client:
        self.uris.append(tracking_uri)
        return Client(self)


class Client:
    def __init__(self, server: Server) -> None:
        self._server = server

    def get_experiment_by_name(self, name: str) -> Any:
        known = self._server.experiments.get(name)
        return known and SimpleNamespace(experiment_id=known)

    def create_experiment(self, name: str) -> str:
        assert name not in self._server.experiments
        return self._server.experiments.setdefault(name, str(len(self._server.experiments)))

    def search_runs(self, experiment_ids: list[str], filter_string: str) -> list[Any]:
        key, _, value = filter_string.removeprefix("tags.").partition(" = ")
        found = [
            key_
            for key_, run in self._server.runs.items()
            if run.experiment in experiment_ids and run.tags.get(key) == value.strip("'")
        ]
        return [SimpleNamespace(info=SimpleNamespace(run_id=run_id)) for run_id in found]

    def create_run(self, experiment_id: str, *, tags: dict[str, str], run_name: str) -> Any:
        run_id = f"run{len(self._server.runs)}"
        self._server.runs[run_id] = Run(experiment_id, dict(tags), run_name)
        return SimpleNamespace(info=SimpleNamespace(run_id=run_id))

    def update_run(self, run_id: str, *, status: str) -> None:
        self._server.runs[run_id].status = status

    def set_terminated(self, run_id: str, *, status: str) -> None:
        self._server.runs[run_id].status = status

    def log_batch(
        self,
        run_id: str,
        metrics: list[Metric] | tuple[()] = (),
        params: list[Param] | tuple[()] = (),
        tags: list[RunTag] | tuple[()] = (),
    ) -> None:
        run = self._server.runs[run_id]
        assert len(params) <= 100
        for param in params:
            assert len(param.value) <= 500
            assert param.key not in run.params, "parameters cannot be changed"
            run.params[param.key] = param.value
        run.tags.update(tags)
        run.metrics += [(metric.key, metric.step, metric.value) for metric in metrics]


@pytest.fixture(autouse=True)
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    made = Server()
    package, entities = ModuleType("mlflow"), ModuleType("mlflow.entities")
    entities.__dict__.update(Metric=Metric, Param=Param, RunTag=RunTag)
    package.__dict__.update(MlflowClient=made.client, entities=entities)
    monkeypatch.setitem(sys.modules, "mlflow", package)
    monkeypatch.setitem(sys.modules, "mlflow.entities", entities)
    return made


class TestMLflow(CallbackContract):
    @pytest.fixture
    def make(self) -> Make:
        return MLflow


def test_a_run_is_a_run_with_its_job_its_trials_and_its_verdict(server: Server, tmp_path: Path) -> None:
    callback = MLflow(tracking_uri="http://tracking:5000", experiment="pruning")
    callback.run_started(run_started(tmp_path))
    callback.trial_ended(trial_ended(0, 60.0))
    callback.trial_ended(trial_ended(1, None))
    callback.phase_ended(PhaseEnded("search", 9.0))
    callback.run_ended(run_ended(tmp_path, sentence="It is better."))
    callback.close()
    (run,) = server.runs.values()
    assert server.uris == ["http://tracking:5000"]
    assert server.experiments == {"pruning": run.experiment}
    assert run.name == "tiny"
    assert run.params == {
        "name": "tiny",
        "seed": "0",
        "search.trials": "2",
        "search.allocations": "['knapsack']",
        "constraints": "{}",
    }
    assert [row for row in run.metrics if row[0] in ("score/trial", "cost/flops")] == [
        ("score/trial", 1, 60.0),
        ("cost/flops", 1, 1200.0),
        ("cost/flops", 2, 1200.0),
    ]
    assert ("seconds/search", 0, 9.0) in run.metrics
    assert ("winner/flops", 0, 1200.0) in run.metrics
    assert run.tags["autoprune_verdict"] == "It is better."
    assert run.tags["autoprune_widths"] == "4-8"
    assert run.status == "FINISHED"


def test_a_resumed_run_goes_on_in_the_run_that_it_began(server: Server, tmp_path: Path) -> None:
    first, other, again = MLflow(), MLflow(), MLflow()
    first.run_started(run_started(tmp_path))
    first.trial_ended(trial_ended(0, 60.0))
    first.close()
    other.run_started(replace(run_started(tmp_path), id="another"))
    other.close()
    assert [run.status for run in server.runs.values()] == ["KILLED", "KILLED"]
    again.run_started(run_started(tmp_path, resumed=True))
    assert server.runs["run0"].status == "RUNNING"
    again.trial_ended(trial_ended(1, 61.0))
    again.run_ended(run_ended(tmp_path))
    assert [run.status for run in server.runs.values()] == ["FINISHED", "KILLED"]
    scores = [(step, value) for key, step, value in server.runs["run0"].metrics if key == "score/trial"]
    assert scores == [(1, 60.0), (2, 61.0)]


def test_what_mlflow_would_refuse_is_made_fit(server: Server, tmp_path: Path) -> None:
    job = {"password": "hush", "long": "x" * 9000, "odd:name": 1, **{f"key{i}": i for i in range(250)}}
    MLflow().run_started(replace(run_started(tmp_path), job=job))
    (run,) = server.runs.values()
    assert len(run.params) == 253
    assert run.params["odd_name"] == "1"
    assert run.params["password"] == "***"


def test_without_mlflow_one_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ConfigError, match=r"callback 'mlflow' needs .* pip install 'autoprune\[mlflow\]'"):
        MLflow()
