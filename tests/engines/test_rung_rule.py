"""Who goes on at a rung on the local engine, and what a search in rungs finds; no networks, nothing trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fake_search import gist
from synthetic_rungs import Scored, domain, problem, searched

from autoprune.controllers.base import Trial, TrialState
from autoprune.engines.rungs import LEARNED
from autoprune.trials.selection import shortlist, smooth, sure_leads

CHEAP = 0.01
"""Cost of a cheap score, where one that counts costs 1."""


def winner(trials: list[Trial]) -> tuple[int, ...]:
    return shortlist(sure_leads(domain(), trials, ()), 1, domain())[0]


@pytest.mark.slow
def test_at_equal_cost_the_chain_finds_at_least_what_either_score_finds_alone() -> None:
    """Paired over 20 problems whose cheap score agrees with the true one by a correlation of 0.6."""
    found = []
    for seed in range(20):
        cheap, score, true = problem(seed, 0.6)
        steps = [Scored(cheap), Scored(score)]
        chained = searched(None, steps, (0.15,), trials=100, seed=seed)
        cost = CHEAP * steps[0].calls + steps[1].calls
        alone = searched(None, [Scored(score)], (), trials=round(cost) - 1, seed=seed)
        cheaply = searched(None, [Scored(cheap)], (), trials=100, seed=seed)  # more make it no better
        found.append([true(winner(trials)) for trials in (chained, alone, cheaply)])
    for rival in (1, 2):
        gain = np.array(found)[:, 0] - np.array(found)[:, rival]
        assert gain.mean() > 0, (rival, gain.mean(), gain.std() / 20**0.5)


@pytest.mark.parametrize("keep", [1 / 3, 0.15])
def test_the_share_that_is_asked_for_goes_on_although_proposals_get_better(keep: float) -> None:
    """From the first proposal on they are better than most rules, which go on, too, and do not count."""
    went_on: list[bool] = []
    for seed in range(4):
        cheap, score, _ = problem(seed, 0.8)
        steps = [Scored(cheap), Scored(score)]
        trials = searched(None, steps, (keep,), trials=40, seed=seed, controller="surrogate", rules=7)
        assert all(trial.state is TrialState.COMPLETE for trial in trials if trial.origin != "controller")
        went_on += [trial.state is TrialState.COMPLETE for trial in trials if trial.origin == "controller"]
    assert len(went_on) == 160
    assert np.mean(went_on) == pytest.approx(keep, abs=0.05)


@pytest.mark.parametrize("controller", ["random", "surrogate"])
def test_a_share_of_one_lets_all_go_on_and_a_tiny_one_hardly_anybody(controller: str) -> None:
    cheap, score, _ = problem(3, 0.6)
    for keep, least, most in ((1.0, 24, 24), (0.9, 20, 23), (1e-310, 1, 6)):
        trials = searched(
            None, [Scored(cheap), Scored(score)], (keep,), trials=24, seed=3, controller=controller, rules=3
        )
        went_on = sum(t.state is TrialState.COMPLETE for t in trials if t.origin == "controller")
        assert least <= went_on <= most, keep
        assert not any(t.state is TrialState.FAILED for t in trials)


def test_each_rung_is_passed_by_some_and_its_scores_are_written_down() -> None:
    cheap, score, _ = problem(1, 0.9)
    middle, _, _ = problem(1, 0.95)
    steps = [Scored(cheap), Scored(middle), Scored(score)]
    trials = searched(None, steps, (0.5, 0.5), trials=40, seed=1)
    reached = [sum(len(trial.partial) + (trial.fidelity == 1) > rung for trial in trials) for rung in range(3)]
    assert [step.calls for step in steps] == reached
    assert 41 > steps[1].calls > steps[2].calls > 3
    for trial in trials:
        assert trial.rungs
        scores = [cheap(trial.widths), middle(trial.widths)][: len(trial.partial)]
        assert [score for _, score in trial.partial] == pytest.approx(scores)
        if trial.state is TrialState.PRUNED:
            assert (trial.fidelity, trial.score) == trial.partial[-1]
        else:
            assert trial.score == pytest.approx(score(trial.widths))
    assert trials[0].state is TrialState.COMPLETE, "the baseline always goes on"


@pytest.mark.parametrize(("controller", "killed_after"), [("surrogate", 25), ("evolution", 4)])
def test_a_search_that_was_killed_goes_on_as_if_it_had_not_been(
    tmp_path: Path, controller: str, killed_after: int
) -> None:
    cheap, score, _ = problem(2, 0.7)

    def trials(folder: Path, *, kill: bool) -> list[Trial]:
        told = 0

        def count(trial: Trial) -> None:
            nonlocal told
            told += 1
            if kill and told == killed_after:
                raise KeyboardInterrupt

        steps = [Scored(cheap), Scored(score)]
        return searched(folder, steps, (0.34,), trials=34, seed=5, controller=controller, on_trial=count)

    whole = trials(tmp_path / "whole", kill=False)
    with pytest.raises(KeyboardInterrupt):
        trials(tmp_path / "killed", kill=True)
    resumed = trials(tmp_path / "killed", kill=False)
    assert gist(resumed) == gist(whole)
    assert [(t.partial, t.rungs) for t in resumed] == [(t.partial, t.rungs) for t in whole]
    assert sum(trial.state is TrialState.COMPLETE for trial in whole) > LEARNED, "the model has decided"


def test_the_winner_has_a_score_of_the_last_rung() -> None:
    """Also where those that ended at a rung, whose numbers are a thousand times as large, are most of all."""
    cheap, score, _ = problem(4, 0.6)
    trials = searched(None, [Scored(cheap), Scored(score)], (0.1,), trials=40, seed=4)
    posterior = smooth(domain(), trials)
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    assert set(posterior) == {trial.widths for trial in complete}
    assert len(complete) < 15
    assert max(abs(mean) for mean, _ in posterior.values()) < 4, "on the last scale"


def test_a_proxy_that_is_no_help_is_found_out() -> None:
    """It falls as the true score rises; candidates it likes least go on once that is known."""
    _, score, true = problem(6, 0.6)
    trials = searched(None, [Scored(lambda widths: -1e3 * true(widths)), Scored(score)], (0.25,), trials=80, seed=6)
    late = [trial for trial in trials if trial.number > 50]
    went_on, stopped = (
        [true(t.widths) for t in late if (t.state is TrialState.COMPLETE) == on] for on in (True, False)
    )
    assert np.mean(went_on) > np.mean(stopped) + 1
