"""Early stopping on the local engine: who goes on, what is written down, and that a kill changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import final

import numpy as np
import pytest
from fake_search import PLAN, gist, session

from autoprune.controllers.base import Trial, TrialState
from autoprune.engines.local import evaluate, run
from autoprune.engines.stopping import BRACKETS, GRACE, REDUCTION, StoppingWatch, SuccessiveHalving, make_stopper
from autoprune.evaluators.base import Evaluator
from autoprune.evaluators.making import make_evaluator
from autoprune.space.groups import Widths
from autoprune.testing.evaluators import tiny_bench
from autoprune.training.watch import Stopped, Watch

EPOCHS = 9


@final
class Epochs(Evaluator):
    """A training whose score rises to that of its widths; writes down what it was asked for."""

    kind = "training"

    def __init__(self, *, catches: bool = False) -> None:
        self.epochs: list[tuple[Widths, int]] = []
        self.asked: list[float] = []
        self._catches = catches

    def evaluate(self, widths: Widths, *, seed: int, full: bool = False, watch: Watch | None = None) -> float:
        end = sum(width**0.5 for width in widths)
        for epoch in range(1, EPOCHS + 1):
            self.epochs.append((widths, epoch))
            if watch is None:
                continue
            try:
                watch.epoch(epoch, EPOCHS, self._score(end * epoch / EPOCHS), dict)
            except Stopped:
                if not self._catches:
                    raise
                return 0.0
        return end

    def _score(self, value: float) -> Callable[[], float]:
        def score() -> float:
            self.asked.append(value)
            return value

        return score


@pytest.mark.parametrize("brackets", [1, 3])
def test_decisions_are_those_of_ray_tune(brackets: int) -> None:
    """Ray's own bracket, told the same scores in the same order; ties and falling scores, too."""
    hyperband = pytest.importorskip("ray.tune.schedulers.async_hyperband")
    rng = np.random.default_rng(0)
    stopper = SuccessiveHalving(brackets)
    own = [hyperband._Bracket(100 * GRACE, 100, REDUCTION, s, stop_last_trials=False) for s in range(brackets)]
    stops = 0
    for seed in range(200):
        watch, bracket, stopped = StoppingWatch(stopper, seed), own[stopper._bracket(seed)], False
        for epoch in range(1, EPOCHS):
            score = float(rng.integers(20))
            action = bracket.on_result(SimpleNamespace(trial_id=seed), 100 * epoch / EPOCHS, score)
            try:
                watch.epoch(epoch, EPOCHS, lambda score=score: score, dict)  # type: ignore[misc]
            except Stopped:
                stopped = True
            assert stopped == (action == "STOP"), (seed, epoch)
            if stopped:
                stops += 1
                break
    assert 50 < stops < 190


def test_brackets_are_drawn_as_ray_tune_draws_them() -> None:
    stopper = SuccessiveHalving(3)
    drawn = np.bincount([stopper._bracket(seed) for seed in range(3000)], minlength=3) / 3000
    odds = np.exp([2.0, 1.0, 0.0]) / np.exp([2.0, 1.0, 0.0]).sum()  # rungs below the end of each
    assert drawn == pytest.approx(odds, abs=4 * 0.5 / 3000**0.5)
    assert [len(bracket) for bracket in stopper._brackets] == [2, 1, 0]


def test_most_of_the_work_is_saved_and_the_best_ends_whole(tmp_path: Path) -> None:
    search, evaluator = session(tmp_path, trials=40), Epochs()
    run(search, evaluator, make_stopper("asha"))
    searched = [trial for trial in search.trials if trial.origin == "controller"]
    pruned = [trial for trial in searched if trial.state is TrialState.PRUNED]
    assert all(trial.state is TrialState.COMPLETE for trial in search.trials[: len(PLAN)]), (
        "baselines are never stopped"
    )
    assert len(pruned) > 0.4 * len(searched)
    ends = {trial.number: sum(width**0.5 for width in trial.widths) for trial in searched}
    best = max(searched, key=lambda trial: ends[trial.number])
    assert best.state is TrialState.COMPLETE
    for trial in pruned:
        assert trial.fidelity == trial.partial[-1][0]
        assert trial.fidelity in (pytest.approx(1 / 9), pytest.approx(1 / 3))
        assert trial.score == trial.partial[-1][1]
        assert len([w for w, _ in evaluator.epochs if w == trial.widths]) == round(EPOCHS * trial.fidelity)
    assert len(evaluator.asked) == sum(len(trial.partial) for trial in searched), "scored at rungs only"


@pytest.mark.parametrize("name", ["asha", "hyperband"])
@pytest.mark.parametrize("killed_after", [4, 13])
def test_a_search_that_was_killed_stops_the_same_trials(tmp_path: Path, name: str, killed_after: int) -> None:
    def searched(folder: Path, kill: bool) -> list[Trial]:
        told: list[Trial] = []

        def count(trial: Trial) -> None:
            told.append(trial)
            if kill and len(told) == killed_after:
                raise KeyboardInterrupt

        search = session(folder, controller="surrogate", trials=18, on_trial=count)
        run(search, Epochs(), SuccessiveHalving(BRACKETS[name]))  # type: ignore[index]
        return search.trials

    whole = searched(tmp_path / "whole", kill=False)
    with pytest.raises(KeyboardInterrupt):
        searched(tmp_path / "killed", kill=True)
    resumed = searched(tmp_path / "killed", kill=False)
    assert gist(resumed) == gist(whole)
    assert [trial.partial for trial in resumed] == [trial.partial for trial in whole]
    assert {trial.state for trial in whole} == {TrialState.COMPLETE, TrialState.PRUNED}


def test_what_an_evaluator_returns_after_a_stop_does_not_count() -> None:
    stopper = SuccessiveHalving()
    stopper.learn(0, [(1 / 9, 1e6)])
    for catches in (False, True):
        outcome = evaluate(Epochs(catches=catches), (4, 9), seed=1, watch=StoppingWatch(stopper, 1))
        assert (outcome.score, outcome.pruned) == (5.0 / 9, True)
        assert outcome.partial == ((1 / 9, 5.0 / 9),)


def test_a_stop_that_nobody_asked_for_is_a_failure() -> None:
    @final
    class Own(Evaluator):
        kind = "training"

        def evaluate(self, widths: Widths, *, seed: int, full: bool = False, watch: Watch | None = None) -> float:
            raise Stopped

    for watch in (None, StoppingWatch(SuccessiveHalving(), 0)):
        outcome = evaluate(Own(), (4,), seed=0, watch=watch)
        assert outcome.score is None
        assert "Stopped" in str(outcome.error)


def test_a_score_on_the_way_that_is_no_number_fails_the_trial() -> None:
    @final
    class Broken(Evaluator):
        kind = "training"

        def evaluate(self, widths: Widths, *, seed: int, full: bool = False, watch: Watch | None = None) -> float:
            assert watch is not None
            watch.epoch(1, 2, lambda: float("nan"), dict)
            return 1.0

    outcome = evaluate(Broken(), (4,), seed=0, watch=StoppingWatch(SuccessiveHalving(), 0))
    assert "a score on the way must return a finite number" in str(outcome.error)


def test_a_real_training_is_stopped_at_the_first_rung() -> None:
    factory = tiny_bench()
    evaluator, stopper = make_evaluator("scratch", factory, {"epochs": 9}), SuccessiveHalving()
    whole = evaluate(evaluator, factory.space.full, seed=0, watch=StoppingWatch(stopper, 0))
    assert (whole.pruned, len(whole.partial)) == (False, 2)
    unwatched = evaluate(evaluator, factory.space.full, seed=0)
    assert whole.score == unwatched.score, "watching changes nothing"
    stopper.learn(5, [(1 / 9, 100.0)] * 3)
    stopped = evaluate(evaluator, factory.space.smallest, seed=1, watch=StoppingWatch(stopper, 1))
    assert (stopped.pruned, stopped.fidelity) == (True, 1 / 9)


def test_none_stops_nothing() -> None:
    assert make_stopper("none") is None
