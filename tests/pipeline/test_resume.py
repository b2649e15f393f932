from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from tiny import Perceptron, closeness, perceptron, regression
from torch import nn

import autoprune
from autoprune.engines import local
from autoprune.errors import EvaluationError, RunError
from autoprune.evaluators.inherited import Inherited
from autoprune.files import read_json
from autoprune.pipeline.phases import base_network
from autoprune.space.groups import Widths
from autoprune.trials.run_directory import RunDirectory
from autoprune.trials.run_files import COPIES, FILES, REPLACED, SEAL
from autoprune.verdict.finals import save_weights


@pytest.fixture(scope="module")
def model() -> Perceptron:
    return perceptron()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, model: Perceptron) -> autoprune.SearchResult:
    return regression(tmp_path_factory.mktemp("runs") / "run", model)


@pytest.fixture
def unfinished(finished: autoprune.SearchResult, tmp_path: Path) -> Path:
    """A run killed while it wrote its report."""
    copy = tmp_path / "run"
    shutil.copytree(finished.directory, copy)
    for name in ("result.json", "report.html", "report.md"):
        (copy / name).unlink()
    return copy


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def outcome(result: autoprune.SearchResult) -> dict[str, Any]:
    """All of result.json but the times."""
    record = json.loads((result.directory / "result.json").read_text())
    for timed in (*record["trials"], *record["finals"], record["base"]):
        del timed["seconds"]
    return dict(record)


def test_a_finished_run_is_only_read(finished: autoprune.SearchResult, model: Perceptron) -> None:
    before = content(finished.directory)
    again = regression(finished.directory, model, resume=True)
    assert again.verdict == finished.verdict
    assert again.widths == finished.widths
    assert again.record.finals == finished.record.finals
    assert content(finished.directory) == before


def test_what_is_left_is_done_and_nothing_twice(
    unfinished: Path, finished: autoprune.SearchResult, model: Perceptron, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "evaluate", lambda *_, **__: pytest.fail("evaluated again"))
    resumed = regression(unfinished, model, resume=True)
    assert outcome(resumed) == outcome(finished)
    assert (unfinished / "report.html").is_file()


def as_of_an_older_version(run: Path) -> None:
    """A run that began before there were checksums and copies."""
    entries = read_json(run / "run.json")
    for key in (FILES, SEAL, REPLACED):
        entries.pop(key, None)
    (run / "run.json").write_text(json.dumps(entries))
    shutil.rmtree(run / COPIES)


def _tanh() -> Perceptron:
    return perceptron(activation=nn.Tanh)


def _nudged() -> Perceptron:
    changed = perceptron()
    with torch.no_grad():
        changed.last.bias += 1e-3
    return changed


def another_score(network: nn.Module) -> float:
    return closeness(network) + 1


@pytest.mark.parametrize(
    ("differs", "make", "changes"),
    [
        ("model code", _tanh, {}),
        ("weights", _nudged, {}),
        ("space", perceptron, {"space": {"min_channels": 3}}),
        ("data", perceptron, {"score_func": another_score}),
        ("job", perceptron, {"seed": 1}),
        ("job", perceptron, {"training": {"epochs": 3}}),
        ("job", perceptron, {"trials": 5, "inherit": []}),
        ("weights", _nudged, {"trials": 5}),
    ],
)
def test_resuming_with_something_else_is_refused_and_named(
    unfinished: Path, differs: str, make: Callable[[], Perceptron], changes: dict[str, Any]
) -> None:
    before = content(unfinished)
    with pytest.raises(RunError, match=rf"cannot be resumed: .*\b{differs}\b.* of this call differ.*; restore"):
        regression(unfinished, make(), resume=True, **changes)
    assert content(unfinished) == before


def test_what_is_the_same_is_not_named(unfinished: Path, model: Perceptron) -> None:
    with pytest.raises(RunError, match=r"resumed: data of the run and") as caught:
        regression(unfinished, model, resume=True, score_func=another_score)
    assert not any(name in str(caught.value) for name in ("weights", "job", "space", "model code"))


def test_a_second_driver_is_refused(unfinished: Path, model: Perceptron) -> None:
    with RunDirectory.reopen(unfinished):
        for resume in (True, False):
            with pytest.raises(RunError, match=r"another process|in use already"):
                regression(unfinished, model, resume=resume)


@pytest.mark.parametrize("damage", ["", "{", "[]", "{}", '{"fingerprints": {}}'])
def test_a_damaged_run_json_without_a_copy_is_one_clear_error(unfinished: Path, model: Perceptron, damage: str) -> None:
    (unfinished / "run.json").write_text(damage)
    shutil.rmtree(unfinished / COPIES)
    with pytest.raises(RunError, match=r"run\.json is damaged|cannot be resumed"):
        regression(unfinished, model, resume=True)


def test_another_base_network_is_refused(unfinished: Path, model: Perceptron) -> None:
    as_of_an_older_version(unfinished)
    save_weights(_nudged(), unfinished / "base.safetensors")
    with pytest.raises(RunError, match="is not the base network that the run trained"):
        regression(unfinished, model, resume=True)


def test_a_base_network_that_is_to_be_trained_is_so_where_a_call_forgets_it(
    model: Perceptron, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise EvaluationError("no power")

    with monkeypatch.context() as patch:
        patch.setattr(base_network, "train_and_score", broken)
        with pytest.raises(EvaluationError, match="no power"):
            regression(tmp_path / "run", model, trained=False)
    before = content(tmp_path / "run").keys()
    with pytest.raises(RunError, match=r"begun with trained=False .*has no base network yet.* give trained=False"):
        regression(tmp_path / "run", model, resume=True)
    assert content(tmp_path / "run").keys() == before
    assert regression(tmp_path / "run", model, resume=True, trained=False).record.base["epochs"] == 2
    regression(tmp_path / "run", model, resume=True)  # the base network is there


def test_two_runs_share_an_external_storage(tmp_path: Path, model: Perceptron) -> None:
    url = f"sqlite:///{tmp_path}/trials.db"
    alone = regression(tmp_path / "alone", model)
    first = regression(tmp_path / "a" / "run", model, storage=url)
    second = regression(tmp_path / "b" / "run", model, storage=url, seed=1)
    assert [t.widths for t in first.trials] == [t.widths for t in alone.trials]
    assert [t.widths for t in second.trials] != [t.widths for t in first.trials]
    names = optuna.get_all_study_names(url)
    ids = {read_json(run.directory / "run.json")["id"] for run in (first, second)}
    assert len(ids) == 2
    assert {name.partition("/")[0] for name in names} == ids
    assert {name.partition("/")[2] for name in names} == {"search", "re-scoring", "uniform curve", "final trainings"}
    assert not list(tmp_path.rglob("a/run/journal.log"))


def test_a_run_can_be_moved_before_it_is_resumed(
    unfinished: Path, finished: autoprune.SearchResult, model: Perceptron, tmp_path: Path
) -> None:
    moved = unfinished.rename(tmp_path / "elsewhere")
    assert regression(moved, model, resume=True).record.finals == finished.record.finals


class Stubborn:
    """Scores like `closeness`, but fails where `broken` says so."""

    def __init__(self, broken: Callable[[int], bool]) -> None:
        self.broken, self.calls = broken, 0

    def __call__(self, network: nn.Module) -> float:
        self.calls += 1
        if self.broken(self.calls):
            raise MemoryError(f"call {self.calls}")
        return closeness(network)


def test_failing_candidates_do_not_end_a_run(tmp_path: Path, model: Perceptron) -> None:
    score = Stubborn(lambda call: call > 2 and call % 3 == 2)  # the first two calls score the base network
    result = regression(tmp_path / "run", model, score_func=score, trials=6, train_func=None, verdict=None)
    failed = [t for t in result.trials if t.error]
    assert failed
    assert all("MemoryError" in (t.error or "") for t in failed)
    assert result.record.winner.search_score is not None


@pytest.mark.parametrize("failures", [2, 99])
def test_candidates_may_fail_when_they_are_scored_again(
    tmp_path: Path, model: Perceptron, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    original, calls = Inherited.evaluate, []

    def flaky(self: Inherited, widths: Widths, *, seed: int, full: bool = False) -> float:
        calls.append(full)
        if full and sum(calls) <= failures:
            raise MemoryError("no room for all validation data")
        return original(self, widths, seed=seed, full=full)

    monkeypatch.setattr(Inherited, "evaluate", flaky)
    if failures == 99:
        with pytest.raises(autoprune.AutopruneError, match=r"none of the best .* resume the run"):
            regression(tmp_path / "run", model)
    else:
        assert regression(tmp_path / "run", model).verdict is not None


def test_a_search_without_any_score_is_one_clear_error(tmp_path: Path, model: Perceptron) -> None:
    score = Stubborn(lambda call: call > 2)
    with pytest.raises(autoprune.AutopruneError, match=r"MemoryError: call 3.*Check the score function"):
        regression(tmp_path / "run", model, score_func=score, train_func=None, verdict=None)
