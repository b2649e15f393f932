"""A search ends with the trials so far, as its time is over or somebody asks for it; all that follows is of these."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny import Perceptron, closeness, perceptron, regression, same_weights

import autoprune
from autoprune.engines import local
from autoprune.errors import RunError
from autoprune.files import read_json
from autoprune.pipeline.phases.ending import SearchEnd
from autoprune.progress.callbacks import Callback, TrialEnded
from autoprune.trials.finishing import REQUEST, ask_to_finish, is_asked_to_finish
from autoprune.trials.run_directory import RunDirectory
from autoprune.trials.session import SearchSession

VERDICT = {"seeds": 1, "fine_tune_epochs": 1, "random_candidates": 2, "protocols": ["fine_tune"]}
LEAST = ["uniform_all", "uniform_inner", "global_threshold"]
"""What a verdict needs: what it is compared with, and something to compare."""


@pytest.fixture(scope="module")
def model() -> Perceptron:
    return perceptron()


def search(run: Path, model: Perceptron, **changes: Any) -> Any:
    return regression(run, model, **{"verdict": VERDICT, "trials": 6, "allocations": ["global_threshold"]} | changes)


class At(Callback):
    """Does something when so many trials have ended."""

    def __init__(self, done: int, then: Callable[[], object]) -> None:
        self.done, self.then = done, then

    def trial_ended(self, event: TrialEnded) -> None:
        if event.done == self.done:
            self.then()


def killed(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.fixture
def stopped(tmp_path: Path, model: Perceptron, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, int]:
    """A run that was killed while it evaluated a candidate, and how many trials had ended."""
    ask, ended = SearchSession.ask, list[int]()

    def interrupted(session: SearchSession) -> Any:
        assignment = ask(session)
        if len(session.trials) >= 5:
            ended.append(len(session.trials))
            assert assignment is not None, "it is on its way"
            raise KeyboardInterrupt
        return assignment

    with monkeypatch.context() as patch:
        patch.setattr(SearchSession, "ask", interrupted)
        with pytest.raises(KeyboardInterrupt):
            search(tmp_path / "run", model)
    assert ended[0] < 11
    return tmp_path / "run", ended[0]


def test_a_search_whose_time_is_over_is_judged_and_goes_on_with_more_time(tmp_path: Path, model: Perceptron) -> None:
    short = search(tmp_path / "run", model, time_budget=1e-9)
    assert [trial.origin for trial in short.trials] == LEAST
    assert short.verdict is not None
    assert short.widths == short.trials[2].widths
    text = (tmp_path / "run" / "report.md").read_text()
    assert "The search ended early (time_budget of 1e-09 s): 3 of 11 trials" in text
    assert search(tmp_path / "run", model, time_budget=1e-9, resume=True).verdict == short.verdict, "it is only read"
    whole, planned = search(tmp_path / "run", model, resume=True), search(tmp_path / "planned", model)
    assert [(t.widths, t.score, t.told) for t in whole.trials] == [(t.widths, t.score, t.told) for t in planned.trials]
    assert whole.verdict == planned.verdict
    assert same_weights(whole.model, planned.model)
    text = (tmp_path / "run" / "report.md").read_text()
    assert "ended early" not in text
    assert "search.time_budget 1e-09 → none: the base network, 3 trials, " in text


def test_time_is_counted_over_all_resumptions(tmp_path: Path) -> None:
    with RunDirectory.create(tmp_path / "run") as directory:
        directory.update_run(seconds={"search": 50.0})
        now = iter([0.0, 10.0, 40.0, 49.0, 52.0])
        over = SearchEnd(directory, 100.0, clock=lambda: next(now))
        assert [over() for _ in range(4)] == [False, False, False, True]
        assert read_json(directory / "run.json")["search_seconds"] == 102.0, "as a kill would leave it"
        assert SearchEnd(directory, 100.0, clock=lambda: 0.0)()
        assert not SearchEnd(directory, 103.0, clock=lambda: 0.0)()
        assert not SearchEnd(directory, None, clock=lambda: 0.0)()


def test_a_run_at_work_is_finished_after_what_it_evaluates(tmp_path: Path, model: Perceptron) -> None:
    run, answers = tmp_path / "run", list[object]()
    result = search(run, model, callbacks=[At(6, lambda: answers.append(autoprune.finish(run)))])
    assert answers == [()], "this process works on it"
    assert len(result.trials) == 6
    assert result.verdict is not None
    assert result.record.provenance["ended_early"] == {"why": "asked to finish", "proposed": 6, "planned": 11}
    assert not (run / REQUEST).exists()
    planned = search(tmp_path / "planned", model)
    assert [t.widths for t in result.trials] == [t.widths for t in planned.trials[:6]]


def test_a_run_that_was_stopped_is_finished_without_another_candidate(
    stopped: tuple[Path, int], model: Perceptron, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, ended = stopped
    assert autoprune.finish(run) == (), "it takes the model, which only Python has"
    full: list[bool] = []
    original = local.evaluate
    monkeypatch.setattr(local, "evaluate", lambda *a, **k: full.append(k.get("full", False)) or original(*a, **k))
    result = search(run, model, resume=True)
    assert full
    assert all(full), "scores on all validation data only"
    assert len(result.trials) == ended
    assert not (run / REQUEST).exists()
    (again,) = autoprune.finish(run)
    assert again.widths == result.widths, "one that has ended is only read"
    whole = search(run, model, trials=7, resume=True)
    assert len(whole.trials) == 12
    assert whole.record.provenance.get("ended_early") is None


def test_a_finished_search_stays_so_if_it_is_killed_before_the_end(
    stopped: tuple[Path, int], model: Perceptron, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, ended = stopped
    ask_to_finish(run)
    with monkeypatch.context() as patch:
        patch.setattr(local, "evaluate", killed)
        with pytest.raises(KeyboardInterrupt):
            search(run, model, resume=True)
    (run / REQUEST).unlink()
    assert len(search(run, model, resume=True).trials) == ended


def test_a_request_is_that_of_the_whole(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "1-flops-50", tmp_path / "1-flops-50" / "flops_search"):
        place.mkdir(exist_ok=True)
        (place / "run.json").write_text("{}")
    inner = tmp_path / "1-flops-50" / "flops_search"
    assert not is_asked_to_finish(inner)
    ask_to_finish(tmp_path)
    assert is_asked_to_finish(inner)
    (tmp_path / "run.json").unlink()
    assert not is_asked_to_finish(inner), "a file of that name in a folder of other things asks for nothing"


def test_a_family_is_finished_as_a_whole(tmp_path: Path, model: Perceptron) -> None:
    run = tmp_path / "run"
    budgets = {"constraints": {"flops": ["60%", "40%"]}, "call": autoprune.sweep}
    first, second = search(run, model, callbacks=[At(6, lambda: ask_to_finish(run))], **budgets)
    assert (len(first.trials), len(second.trials)) == (6, 3)
    assert second.verdict is not None
    assert not (run / REQUEST).exists()


def test_where_nothing_could_be_scored_more_is_tried(
    tmp_path: Path, model: Perceptron, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[object] = []

    def flaky(network: Any) -> float:
        calls.append(network)
        if 4 < len(calls) < 7:  # of the base network there are two
            raise MemoryError
        return closeness(network)

    result = search(tmp_path / "run", model, score_func=flaky, time_budget=1e-9)
    assert any(t.state == "complete" and not t.origin.startswith("uniform") for t in result.trials)


def test_there_is_nothing_to_finish_where_no_run_is(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not a run directory"):
        autoprune.finish(tmp_path)
    assert list(tmp_path.iterdir()) == []
