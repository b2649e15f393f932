"""Whole searches by measures and tasks other than accuracy of labelled examples, from Python and from job files."""

from __future__ import annotations

import json
import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from tiny import Convolutions, Perceptron, X, pictures, write_job
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import autoprune
from autoprune import registry
from autoprune.cli.parts import parts_json
from autoprune.config.job import load_job
from autoprune.errors import AutopruneError, ConfigError, DataError
from autoprune.pipeline import driver
from autoprune.pipeline.fingerprints import job_fingerprint
from autoprune.pipeline.inputs import inputs_of_job
from autoprune.progress.callbacks import Callback, RunEnded, RunStarted, TrialEnded

IMAGES = pictures(60, 0).tensors[0]


def trained() -> Convolutions:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Convolutions(classes=4)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
        images, labels = pictures(200, 5).tensors
        for _ in range(30):
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def model() -> Convolutions:
    return trained()


class Listener(Callback):
    def __init__(self) -> None:
        self.heard: list[Any] = []

    def run_started(self, event: RunStarted) -> None:
        self.heard.append(event)

    def trial_ended(self, event: TrialEnded) -> None:
        self.heard.append(event)

    def run_ended(self, event: RunEnded) -> None:
        self.heard.append(event)


def searched(model: nn.Module, run_dir: Path, **changes: Any) -> autoprune.SearchResult:
    given: dict[str, Any] = {
        "constraints": {"flops": "50%"},
        "trials": 4,
        "controller": "random",
        "progress": "silent",
        "device": "cpu",
        "run_dir": run_dir,
    }
    example = X[:1] if isinstance(model, Perceptron) else torch.zeros(1, 1, 8, 8)
    return autoprune.search(model, example, **(given | changes))


@pytest.fixture(scope="module")
def unlabelled(
    tmp_path_factory: pytest.TempPathFactory, model: Convolutions
) -> tuple[autoprune.SearchResult, Listener]:
    listener, loader = Listener(), DataLoader(TensorDataset(IMAGES), 16)
    place = tmp_path_factory.mktemp("runs") / "run"
    return searched(model, place, data=loader, measure="divergence", callbacks=[listener]), listener


def test_a_pretrained_network_is_searched_with_a_loader_of_inputs(
    unlabelled: tuple[autoprune.SearchResult, Listener], model: Convolutions
) -> None:
    result, _ = unlabelled
    job = yaml.safe_load((result.directory / "job.yaml").read_text())
    assert job["task"] == {"name": "unlabelled", "settings": {}, "measure": "divergence"}
    assert job["verdict"]["seeds"] == 0
    scores = [trial.score for trial in result.trials]
    assert all(score is not None and score < 0 for score in scores)
    assert all(trial.standard_error is not None and trial.standard_error > 0 for trial in result.trials)
    assert result.record.base["validation"] == 0.0
    assert result.verdict is None


def test_the_winners_score_is_the_divergence_of_the_exported_network(
    unlabelled: tuple[autoprune.SearchResult, Listener], model: Convolutions
) -> None:
    result, _ = unlabelled
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))[:12]
    with torch.no_grad():
        p, q = (network(IMAGES[order]).double().log_softmax(1) for network in (model, result.model))
    expected = float((p.exp() * (p - q)).sum(1).mean())
    assert -result.record.winner.search_score == pytest.approx(expected, rel=1e-4)  # type: ignore[operator]


def test_people_read_the_measures_own_sign_name_and_unit(
    unlabelled: tuple[autoprune.SearchResult, Listener],
) -> None:
    result, listener = unlabelled
    page, text = ((result.directory / f"report.{kind}").read_text() for kind in ("html", "md"))
    shown = f"{-result.record.winner.search_score:.4g} nats"  # type: ignore[operator]
    for written in (page, text):
        assert "Scores are divergence in nats, lower is better." in written
        assert "no final networks were trained, as its data have no labels to train on" in written
        assert f"winner {shown}" in written
        assert "(divergence in nats, lower is better)" in written
    assert "divergence in the search, nats (lower is better)" in page
    assert "-0 nats" not in text
    started, *trials, ended = listener.heard
    assert (started.measure, started.unit, started.higher_is_better) == ("divergence", "nats", False)
    assert all(event.score > 0 and event.uniform > 0 for event in trials)
    assert trials[-1].best == min(e.score for e in trials if e.origin not in ("uniform_all", "uniform_inner"))
    assert ended.score == -result.record.winner.search_score


def test_lines_of_progress_say_what_is_lower(model: Convolutions, tmp_path: Path, capsys: Any) -> None:
    searched(model, tmp_path / "run", data=IMAGES, measure="divergence", progress="plain")
    lines = capsys.readouterr().err
    assert "trials, divergence in nats, lower is better" in lines
    assert " nats  best " in lines
    assert "best -" not in lines


def test_a_run_of_it_is_resumed(unlabelled: tuple[autoprune.SearchResult, Listener], model: Convolutions) -> None:
    result, _ = unlabelled
    kept = json.loads((result.directory / "result.json").read_text())
    (result.directory / "result.json").unlink()
    loader = DataLoader(TensorDataset(IMAGES), 16)
    again = searched(model, result.directory, data=loader, measure="divergence", callbacks=[], resume=True)
    assert again.trials == result.trials
    assert json.loads((result.directory / "result.json").read_text())["trials"] == kept["trials"]
    with pytest.raises(AutopruneError, match=r"task\.measure: divergence before, agreement now"):
        searched(model, result.directory, data=loader, measure="agreement", callbacks=[], resume=True)


def test_a_network_of_another_task_is_searched_by_its_relative_error(tmp_path: Path) -> None:
    result = searched(Perceptron(), tmp_path / "run", data=X, measure={"name": "divergence", "settings": {}})
    assert result.record.scale.told == "divergence, lower is better"
    assert "Scores are divergence, lower is better." in (result.directory / "report.md").read_text()


def test_agreement_is_in_percent_and_higher_is_better(model: Convolutions, tmp_path: Path) -> None:
    result = searched(model, tmp_path / "run", data=(IMAGES, IMAGES[:20], IMAGES[20:40]), measure="agreement")
    assert result.record.base["test"] == result.record.base["validation"] == 100.0
    assert all(trial.score is None or 0 <= trial.score <= 100 for trial in result.trials)


def test_asking_for_trainings_without_labels_is_one_clear_error(model: Convolutions, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"trains networks.*no labels to train on.*set verdict seeds to 0"):
        searched(model, tmp_path / "run", data=IMAGES, measure="divergence", verdict={"seeds": 1})
    with pytest.raises(ConfigError, match="no labels to train on"):
        searched(model, tmp_path / "run", data=IMAGES, measure="divergence", trained=False)
    with pytest.raises(ConfigError, match="no labels to train on"):
        searched(model, tmp_path / "run", data=IMAGES, measure="divergence", evaluator="scratch")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"data": IMAGES}, DataError, "data must be DataSplits"),
        ({"data": IMAGES, "measure": "loss"}, DataError, "data must be DataSplits"),
        ({"data": IMAGES, "measure": "divergence", "task": "classification"}, DataError, "data must be DataSplits"),
        ({"data": IMAGES, "measure": "divergance"}, AutopruneError, "Did you mean 'divergence'"),
        ({"measure": "divergence"}, ConfigError, "search needs something to score with"),
        ({"score_func": lambda _: 1.0, "measure": "loss"}, ConfigError, "score_func says by itself what scores count"),
        ({"score_func": lambda _: 1.0, "task": "callable"}, ConfigError, "score_func says by itself"),
        ({"data": torch.zeros(8, 3, 8, 8), "measure": "divergence"}, ConfigError, "does not run on the data's inputs"),
        ({"data": IMAGES, "task": {"name": "unlabelled", "settngs": {}}}, ConfigError, "Did you mean 'settings'"),
    ],
)
def test_what_does_not_fit_is_one_clear_error(
    changes: dict[str, Any], kind: type, message: str, model: Convolutions, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=message):
        searched(model, tmp_path / "run", **changes)
    assert not list(tmp_path.iterdir())


def test_labelled_data_are_searched_by_loss_and_the_verdict_reads_it_downwards(tmp_path: Path) -> None:
    data = (pictures(80, 0), pictures(60, 1), pictures(40, 2))
    short = {"epochs": 1, "batch_size": 16}
    verdict = {"seeds": 2, "fine_tune_epochs": 1, "random_candidates": 1, "protocols": ["fine_tune"]}
    result = searched(trained(), tmp_path / "run", data=data, measure="loss", verdict=verdict, training=short)
    assert result.verdict is not None
    (comparison,) = result.verdict.comparisons
    shown = f"{0.0 - comparison.difference:+.3g} nats of loss (lower is better)"
    assert shown in result.verdict.sentence
    ends = f"{0.0 - comparison.high:+.3g} to {0.0 - comparison.low:+.3g}"
    assert ends in result.verdict.sentence
    assert ends in (result.directory / "report.md").read_text()
    assert all(final.score < 0 and final.noise is not None for final in result.record.finals)
    assert result.record.base["test"] < 0
    lines = (result.directory / "report.md").read_text().splitlines()
    described = next(line for line in lines if line.startswith("| unpruned |"))
    assert f"{-result.record.base['test']:.4g} nats" in described


def pictures_alone(train: int = 40) -> Any:
    """Images without labels, as a data set of a job."""
    return TensorDataset(IMAGES[:train]), TensorDataset(IMAGES[40:])


def test_a_job_searches_a_data_set_without_targets(model: Convolutions, tmp_path: Path) -> None:
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    path = write_job(
        tmp_path / "job.yaml",
        {
            "model.factory": "tiny:Convolutions",
            "model.arguments": {"classes": 4},
            "model.weights": str(tmp_path / "weights.pt"),
            "data": {"name": f"{__name__}:pictures_alone"},
            "task": "unlabelled",
            "verdict": {"seeds": 0},
        },
    )
    (record,) = driver.start_job(load_job(path), tmp_path / "run", progress="silent")
    assert record.scale.told == "divergence in nats, lower is better"
    (again,) = driver.resume_job(tmp_path / "run", progress="silent")
    assert again.trials == record.trials
    changes = {**yaml.safe_load(path.read_text()), "task": "classification"}
    path = write_job(tmp_path / "other.yaml", changes)
    with pytest.raises(DataError, match="pair of tensors"):
        inputs_of_job(load_job(path))


def test_a_job_without_a_task_keeps_its_fingerprint_and_its_text(tmp_path: Path) -> None:
    plain = load_job(write_job(tmp_path / "plain.yaml"))
    named = load_job(write_job(tmp_path / "named.yaml", {"task": "classification"}))
    loss = load_job(write_job(tmp_path / "loss.yaml", {"task": {"measure": "loss"}}))
    assert "task" not in yaml.safe_load(plain.text)
    assert job_fingerprint(plain) == job_fingerprint(named) != job_fingerprint(loss)
    assert yaml.safe_load(loss.text)["task"] == {"name": "classification", "settings": {}, "measure": "loss"}
    assert load_job(write_job(tmp_path / "again.yaml", yaml.safe_load(loss.text))).task == loss.task


OWN = '''
"""Regression of pictures by their mean: a task and a measure of somebody else."""

import copy

import torch
import torch.nn.functional as F

from autoprune.data.batch import Batch
from autoprune.measures.base import Measure, make_measure
from autoprune.tasks.base import Task
from autoprune.tasks.scoring import scored_by


class Distance(Measure):
    """How far an answer is from its target."""

    name, unit, higher_is_better, lowest = "distance", "m", False, 0.0

    def values(self, outputs, batch, base):
        return (outputs.mean(1) - batch.targets.to(outputs.device)).abs()


class Brightness(Task):
    """Networks say how bright a picture is.

    Args:
        given: what it is made from.
        scale: of the targets.
    """

    source, use = "Doe 2027", "When pictures have no labels."

    def __init__(self, given, *, times=1.0):
        super().__init__(given.device)
        train, validation = given.data
        self._train, self._validation, self._times = train.tensors[0], validation.tensors[0], times
        self._measure = given.measure or Distance()

    def _batch(self, images):
        return Batch(images, self._times * images.mean((1, 2, 3)))

    def train(self, model, *, epochs, seed, lr=None, progress=None, watch=None, score=None):
        optimizer = torch.optim.SGD(model.train().parameters(), lr=0.01)
        for _ in range(epochs):
            batch = self._batch(self._train)
            optimizer.zero_grad()
            F.mse_loss(model(batch.inputs).mean(1), batch.targets).backward()
            optimizer.step()
        model.eval()

    def scored(self, model, *, split="validation", limit=None, examples=False):
        batches = [self._batch(self._validation[:limit])]
        return scored_by(self._measure, model, batches, split=split, device=self.device, examples=examples)

    def calibration_batches(self, batches, *, seed):
        return [self._batch(self._train).to(self.device)][:batches]

    trains, has_test, feeds = True, False, True
    test_examples = property(lambda self: len(self._validation))
    scale = property(lambda self: self._measure.scale)
    fingerprint = property(lambda self: str(self._times))
'''


def test_a_task_and_a_measure_of_one_file_outside_the_package_work_from_a_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bright_pictures.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    offered = {
        "autoprune.tasks": EntryPoint("brightness", "bright_pictures:Brightness", "autoprune.tasks"),
        "autoprune.measures": EntryPoint("distance", "bright_pictures:Distance", "autoprune.measures"),
    }
    monkeypatch.setattr(
        registry, "entry_points", lambda group: EntryPoints([offered[group]] if group in offered else [])
    )
    changes = {
        "data": {"name": f"{__name__}:pictures_alone"},
        "task": {"name": "brightness", "settings": {"times": 2.0}, "measure": "distance"},
        "verdict.protocols": ["fine_tune"],
    }
    job = load_job(write_job(tmp_path / "job.yaml", changes))
    (record,) = driver.start_job(job, tmp_path / "run", progress="silent")
    assert record.scale.told == "distance in m, lower is better"
    assert record.verdict is not None
    assert " m of distance (lower is better)" in record.verdict.sentence
    assert all(trial.standard_error for trial in record.trials)
    listed = parts_json("tasks")["tasks"][-1]
    assert (listed["name"], listed["source"]) == ("brightness", "Doe 2027")
    assert parts_json("measures")["measures"][-1]["name"] == "distance"
    wrong = load_job(write_job(tmp_path / "wrong.yaml", {**changes, "task.measure": "loss"}))
    with pytest.raises(AutopruneError, match="classification needs outputs"):
        driver.start_job(wrong, tmp_path / "other", progress="silent")
    sys.modules.pop("bright_pictures")


def test_a_task_object_is_searched_with(model: Convolutions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from autoprune.tasks.base import TaskInputs, make_task
    from autoprune.training.recipe import Recipe

    given = TaskInputs(model, IMAGES, Recipe(epochs=1), torch.device("cpu"))
    task = make_task("unlabelled", {}, given)
    result = searched(model, tmp_path / "run", task=task)
    assert result.record.scale.name == "divergence"
    with pytest.raises(ConfigError, match="a task object says by itself what scores count"):
        searched(model, tmp_path / "other", task=task, measure="agreement")


def test_a_job_names_functions(tmp_path: Path) -> None:
    changes = {
        "model.factory": "tiny:Perceptron",
        "data": {"name": f"{__name__}:rows"},
        "task": {"name": "callable", "settings": {"score": "tiny:closeness", "train": "tiny:fit"}},
        "verdict.protocols": ["fine_tune"],
    }
    (record,) = driver.start_job(
        load_job(write_job(tmp_path / "job.yaml", changes)), tmp_path / "run", progress="silent"
    )
    assert record.verdict is not None
    assert record.scale.told == "score, higher is better"


def rows() -> Any:
    """Batches for calibration."""
    return [X[:16], X[16:]]
