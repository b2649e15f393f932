"""A run that has ended goes on: with more of the same in place, with another budget beside it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny import Perceptron, perceptron, regression, same_weights

import autoprune
from autoprune.engines import local
from autoprune.engines.local import LocalEngine
from autoprune.errors import RunError
from autoprune.files import read_json
from autoprune.pipeline import earlier
from autoprune.pipeline.driver import records_of, write_all_reports
from autoprune.trials.run_directory import RunDirectory
from autoprune.trials.run_files import differing as files_differing
from autoprune.trials.session import SearchSession

VERDICT = {"seeds": 2, "fine_tune_epochs": 1, "random_candidates": 2, "protocols": ["fine_tune", "scratch_e"]}


@pytest.fixture(scope="module")
def model() -> Perceptron:
    return perceptron()


def search(run: Path, model: Perceptron, **changes: Any) -> Any:
    return regression(run, model, **{"verdict": VERDICT, "allocations": ["global_threshold"]} | changes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, model: Perceptron) -> Path:
    run = tmp_path_factory.mktemp("runs") / "run"
    search(run, model)
    return run


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def outcome(result: autoprune.SearchResult) -> dict[str, Any]:
    """All of result.json but the times, and what the widths were scored with."""
    record = json.loads((result.directory / "result.json").read_text())
    for timed in (*record["trials"], *record["finals"], record["base"]):
        del timed["seconds"]
    return dict(record)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("controller", ["random", {"name": "surrogate", "settings": {"startup": 2}}, "cmaes", "abc"])
def test_more_trials_give_what_a_run_planned_so_would_have(
    tmp_path: Path, model: Perceptron, controller: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"controller": controller, "verdict": {**VERDICT, "seeds": 1, "protocols": ["fine_tune"]}}
    planned = search(tmp_path / "planned", model, trials=9, **given)
    search(tmp_path / "run", model, trials=4, **given)
    calls, original = [], local.evaluate
    monkeypatch.setattr(local, "evaluate", lambda *a, **k: calls.append(k.get("full", False)) or original(*a, **k))
    longer = search(tmp_path / "run", model, trials=9, resume=True, **given)
    assert outcome(longer) == outcome(planned)
    assert calls.count(False) <= 5, "what was scored is not scored again"
    assert same_weights(longer.model, planned.model)


def test_a_schedule_stays_as_it_was_laid_out(tmp_path: Path, model: Perceptron) -> None:
    given = {"controller": "annealing", "verdict": {**VERDICT, "seeds": 0}}
    first = search(tmp_path / "run", model, trials=6, **given)
    longer = search(tmp_path / "run", model, trials=12, resume=True, **given)
    assert [t.widths for t in longer.trials[: len(first.trials)]] == [t.widths for t in first.trials]
    assert len(longer.trials) == len(first.trials) + 6
    assert read_json(tmp_path / "run" / "run.json")["planned_trials"] == 6
    longest = search(tmp_path / "run", model, trials=14, resume=True, **given)
    assert [t.widths for t in longest.trials[: len(longer.trials)]] == [t.widths for t in longer.trials]


def test_more_seeds_train_only_the_new_ones(run: Path, model: Perceptron, monkeypatch: pytest.MonkeyPatch) -> None:
    before, trained, original = records_of(run)[0], [], LocalEngine.train

    def train(self: LocalEngine, work: Any, pieces: Any) -> Any:
        trained.extend(pieces)
        return original(self, work, pieces)

    monkeypatch.setattr(LocalEngine, "train", train)
    monkeypatch.setattr(local, "evaluate", lambda *_, **__: pytest.fail("scored again"))
    longer = search(run, model, verdict={**VERDICT, "seeds": 3}, resume=True)
    assert {piece.seed for piece in trained} == {2}
    assert [f for f in longer.record.finals if f.seed < 2] == list(before.finals)
    assert {c.seeds for c in longer.verdict.comparisons} == {3}
    assert longer.record.trials == before.trials


def test_a_result_of_before_gives_nothing_of_after(run: Path, model: Perceptron, tmp_path: Path) -> None:
    before = search(run, model, resume=True)
    assert same_weights(before.network(), before.model)
    longer = search(run, model, verdict={**VERDICT, "fine_tune_epochs": 2}, resume=True)
    assert longer.widths == before.widths
    pages = content(run)
    calls = (before.network, before.report, lambda: before.save(tmp_path / "saved"))
    for call in calls:
        with pytest.raises(RunError, match=rf"has gone on since this result: it is kept in {run / 'earlier' / '1'}"):
            call()
    assert content(run) == pages
    assert not (tmp_path / "saved").exists()
    longer.report()
    assert files_differing(run) == {}


def test_longer_final_trainings_keep_those_whose_length_is_the_same(
    run: Path, model: Perceptron, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained, original = [], LocalEngine.train

    def train(self: LocalEngine, work: Any, pieces: Any) -> Any:
        trained.append({piece.protocol.label for piece in pieces})
        return original(self, work, pieces)

    first = records_of(run)[0]
    monkeypatch.setattr(LocalEngine, "train", train)
    longer = search(run, model, verdict={**VERDICT, "fine_tune_epochs": 3}, resume=True)
    fine = [f.epochs for f in longer.record.finals if f.protocol == "fine_tune"]
    assert set(fine) == {3}
    assert trained == [{"fine_tune"}], "training from scratch is as long as it was"
    again = search(run, model, resume=True)
    scores = [[(f.arm, f.protocol, f.seed, f.epochs, f.score) for f in one.finals] for one in (again.record, first)]
    assert scores[0] == scores[1]
    assert again.verdict == first.verdict
    assert [piece for pieces in trained[1:] for piece in pieces] == ["fine_tune"], "only the winner, for its weights"


def test_the_exported_weights_are_those_of_the_winner_of_now(tmp_path: Path, model: Perceptron) -> None:
    """The weights of a network that was trained as a rival before are trained once more, as they were not kept."""
    given = {"verdict": {**VERDICT, "protocols": ["fine_tune"]}, "trials": 12}
    planned = search(tmp_path / "planned", model, **given)
    for trials in (1, 2, 3, 12):
        longer = search(tmp_path / "run", model, **given | {"trials": trials}, resume=trials > 1)
    assert longer.widths == planned.widths
    assert same_weights(longer.model, planned.model)


def test_the_report_says_what_was_reused(run: Path, model: Perceptron) -> None:
    search(run, model, trials=6, resume=True)
    search(run, model, trials=6, verdict={**VERDICT, "seeds": 3}, resume=True)
    for name in ("report.md", "report.html"):
        text = (run / name).read_text()
        assert "search.trials 4 → 6: the base network, 9 trials, " in text
        assert "2 trials are new" in text
        assert "verdict.seeds 2 → 3: the base network, 11 trials, " in text
        assert "0 trials are new" in text


def test_what_it_had_concluded_is_kept_and_can_be_read_and_exported(
    run: Path, model: Perceptron, tmp_path: Path
) -> None:
    before = content(run)
    search(run, model, trials=6, resume=True)
    kept = run / "earlier" / "1"
    for name in ("job.yaml", "result.json", "report.html", "export/model.safetensors"):
        assert (kept / name).read_bytes() == before[name]
    (record,) = write_all_reports(kept)
    assert len(record.trials) == 9
    assert autoprune.load(kept / "export", model=model).first.out_features == record.winner.widths[0]


def test_a_run_that_goes_on_and_is_killed_goes_on_as_if_it_had_not_been(
    run: Path, model: Perceptron, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    planned = search(tmp_path / "planned", model, trials=8)
    ask = SearchSession.ask

    def killed(session: SearchSession) -> Any:
        assignment = ask(session)
        if len(session.trials) >= 10:
            raise KeyboardInterrupt
        return assignment

    with monkeypatch.context() as patch:
        patch.setattr(SearchSession, "ask", killed)
        with pytest.raises(KeyboardInterrupt):
            search(run, model, trials=8, resume=True)
    assert outcome(search(run, model, trials=8, resume=True)) == outcome(planned)
    assert "9 trials, " in (run / "report.md").read_text(), "what is new is counted from where it went on"


@pytest.mark.parametrize("at", ["run.json", "job.yaml"])
def test_a_kill_while_it_is_rewritten_leaves_a_run_that_ends_as_before(
    run: Path, model: Perceptron, monkeypatch: pytest.MonkeyPatch, at: str, finished: Path
) -> None:
    name = {"run.json": "write_run", "job.yaml": "write_text"}[at]
    original = getattr(RunDirectory, name)

    def killed(self: RunDirectory, *given: Any) -> None:
        if self.path == run and (at == "run.json" or given[0] == at):
            raise KeyboardInterrupt
        original(self, *given)

    monkeypatch.setattr(RunDirectory, name, killed)
    with pytest.raises(KeyboardInterrupt):
        search(run, model, trials=8, resume=True)
    monkeypatch.setattr(RunDirectory, name, original)
    assert not (run / "result.json").exists()
    again = search(run, model, resume=True)
    assert outcome(again) == json.loads(json.dumps(outcome(again)))
    assert [t.widths for t in again.trials] == [t.widths for t in records_of(finished)[0].trials]
    entries = read_json(run / "run.json")
    assert "continuing" not in entries
    assert "continued" not in entries
    assert len(search(run, model, trials=8, resume=True).trials) == 13


def test_where_the_old_conclusion_cannot_be_kept_nothing_changes(
    run: Path, model: Perceptron, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = content(run)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(earlier.shutil, "copytree", full)
    with pytest.raises(RunError, match=r"cannot be kept in .*earlier/1: No space left .* Nothing was changed"):
        search(run, model, trials=8, resume=True)
    assert {name: data for name, data in content(run).items() if name != ".lock"} == {
        name: data for name, data in before.items() if name != ".lock"
    }


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"trials": 3}, r"search.trials: 3, as 4 were proposed already and stay; give at least 4\. .*autoprune finish"),
        ({"seed": 1}, r"job of the run and of this call differ \(seed: 0 before, 1 now\); restore .* What may differ"),
        ({"trials": 9, "training": {"epochs": 5}}, r"differ \(.*training.epochs: 2 before, 5 now.*\); restore"),
        ({"trials": 9, "early_stopping": "asha"}, r"cannot be resumed with early_stopping: asha"),
        ({"verdict": {**VERDICT, "inherit": []}}, r"job of the run and of this call differ"),
    ],
)
def test_what_a_run_cannot_go_on_with_is_one_clear_error(
    run: Path, model: Perceptron, changes: dict[str, Any], said: str
) -> None:
    before = content(run)
    with pytest.raises(RunError, match=said):
        search(run, model, resume=True, **changes)
    assert content(run) == before


def test_another_budget_begins_a_run_beside_it_with_what_it_has(
    run: Path, model: Perceptron, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, asked = content(run), []
    wider = {"flops": {"min": "1%", "max": "50%"}}  # its uniform networks are those of the run
    original = local.evaluate
    monkeypatch.setattr(local, "evaluate", lambda e, w, **k: asked.append((w, k.get("full"))) or original(e, w, **k))
    found = search(run, model, constraints=wider, trials=8, resume=True)
    assert found.directory == run.parent / "run-flops-1-50"
    assert content(run) == before
    assert (found.directory / "base.safetensors").read_bytes() == before["base.safetensors"]
    assert found.record.budget[0]["lower"] < 0.05 * found.record.budget[0]["full"]
    known = {t.widths for t in records_of(run)[0].trials}
    assert known & {t.widths for t in found.trials}, "or this test shows nothing"
    assert not known & {widths for widths, full in asked if not full}
    assert "Begun from run run, with its base network; " in (found.directory / "report.md").read_text()
    assert search(run, model, constraints=wider, trials=8, resume=True).directory == found.directory
    longer = search(run, model, constraints=wider, trials=10, resume=True)
    assert longer.directory != found.directory, "another job, another run"


def test_another_budget_does_not_need_the_old_run_once_it_has_begun(
    run: Path, model: Perceptron, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(local, "evaluate", killed)
        with pytest.raises(KeyboardInterrupt):
            search(run, model, constraints={"flops": "30%"}, resume=True)
    shutil.rmtree(run)
    found = search(run.parent / "run-flops-30", model, constraints={"flops": "30%"}, resume=True)
    assert found.verdict is not None


def test_another_controller_begins_a_run_beside_it(run: Path, model: Perceptron) -> None:
    found = search(run, model, controller="evolution", resume=True)
    assert found.directory == run.parent / "run-anew"
    assert (found.directory / "base.safetensors").read_bytes() == (run / "base.safetensors").read_bytes()


def test_several_budgets_begin_a_family_on_a_run(run: Path, model: Perceptron) -> None:
    budgets = {"flops": ["60%", "40%"]}
    found = search(run, model, constraints=budgets, call=autoprune.sweep, resume=True)
    assert [one.directory.name for one in found] == ["1-flops-60", "2-flops-40"]
    assert found[0].directory.parent.name == "run-flops-60-flops-40"
    for one in found:
        assert (one.directory / "base.safetensors").read_bytes() == (run / "base.safetensors").read_bytes()


def test_a_family_goes_on_with_all_of_its_runs_and_no_run_without_it(tmp_path: Path, model: Perceptron) -> None:
    given = {"constraints": {"flops": ["60%", "40%"]}, "call": autoprune.sweep, "verdict": {**VERDICT, "seeds": 0}}
    planned = search(tmp_path / "planned", model, trials=6, **given)
    search(tmp_path / "run", model, trials=3, **given)
    with pytest.raises(RunError, match=r"is a part of .*run and cannot go on alone with other search\.trials; give"):
        search(tmp_path / "run" / "1-flops-60", model, trials=6, constraints={"flops": "60%"}, verdict=given["verdict"],
               resume=True)  # fmt: skip
    with pytest.raises(RunError, match=r"as 3 were proposed already"):
        search(tmp_path / "run", model, trials=2, resume=True, **given)
    longer = search(tmp_path / "run", model, trials=6, resume=True, **given)
    assert [[t.widths for t in one.trials] for one in longer] == [[t.widths for t in one.trials] for one in planned]
    assert (tmp_path / "run" / "overview.md").is_file()
