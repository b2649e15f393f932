from __future__ import annotations

import math
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from fake_search import PLAN, ROOMY, Fake, gist, noisy, one_choice, session

from autoprune.controllers.base import Trial, TrialState
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.engines import local
from autoprune.errors import ConfigError, EvaluationError, RunError
from autoprune.evaluators.base import Evaluator
from autoprune.space.groups import Widths
from autoprune.testing.spaces import chain_space
from autoprune.trials.assignment import Assignment, Outcome
from autoprune.trials.ledger import Ledger
from autoprune.trials.session import HOPELESS, SearchSession

CONTROLLERS = ("random", "evolution", "surrogate", "optuna:TPESampler")


def finished(folder: Path, **changes: object) -> SearchSession:
    search = session(folder, **changes)  # type: ignore[arg-type]
    local.run(search, Fake(noisy))
    return search


def test_the_plan_comes_first_and_then_as_many_proposals_as_asked_for(tmp_path: Path) -> None:
    trials = finished(tmp_path, trials=10).trials
    assert [(t.origin, t.widths) for t in trials[: len(PLAN)]] == list(PLAN)
    assert [t.origin for t in trials[len(PLAN) :]] == ["controller"] * 10
    assert [t.number for t in trials] == list(range(len(PLAN) + 10))


def test_every_proposal_has_a_seed_of_its_own_and_its_exact_costs(tmp_path: Path) -> None:
    trials = finished(tmp_path).trials
    assert len({t.seed for t in trials}) == len(trials)
    assert all(t.costs == ROOMY.budget.costs_of(t.widths) for t in trials)


def test_best_and_uniform_are_kept_apart(tmp_path: Path) -> None:
    search = finished(tmp_path)
    scores = {
        origin: [t.score for t in search.trials if t.origin == origin] for origin in ("uniform_all", "controller")
    }
    assert search.uniform == max(filter(None, scores["uniform_all"]))
    assert search.best is not None
    assert search.best >= max(filter(None, scores["controller"]))


@pytest.mark.parametrize("domain", [BudgetedSpace(chain_space((4, 4), levels=2), {"flops": "60%"}), one_choice()])
def test_fewer_candidates_than_trials_are_evaluated_once_each(tmp_path: Path, domain: BudgetedSpace) -> None:
    shown: list[Trial] = []
    search = session(
        tmp_path, domain=domain, plan=[("uniform_all", domain.uniform())], trials=20, on_trial=shown.append
    )
    evaluator = Fake(noisy)
    local.run(search, evaluator)
    assert len(search.trials) == 21
    assert shown == search.trials, "remembered scores are shown too"
    assert len(evaluator.calls) == len(set(evaluator.calls)) == len({t.widths for t in search.trials}) < 21
    scores: dict[Widths, float | None] = {}
    assert all(scores.setdefault(t.widths, t.score) == t.score for t in search.trials)


def test_a_kill_while_a_remembered_score_is_written_does_not_evaluate_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    domain, evaluator = one_choice(), Fake(noisy)
    search = session(tmp_path, domain=domain, plan=(), trials=5)
    first = search.ask()
    assert first is not None
    search.tell(first, local.evaluate(evaluator, first.widths, seed=first.seed))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "finish", killed)
        with pytest.raises(KeyboardInterrupt):
            search.ask()
    resumed = session(tmp_path, domain=domain, plan=(), trials=5)
    local.run(resumed, evaluator)
    assert len(evaluator.calls) == 1
    assert {t.score for t in resumed.trials} == {resumed.trials[0].score}


def test_failing_candidates_never_end_a_search(tmp_path: Path) -> None:
    def often_fails(widths: Widths, seed: int) -> float:
        if seed % 3:
            raise RuntimeError(f"no memory for {widths}")
        return noisy(widths, seed)

    search = session(tmp_path, trials=20)
    local.run(search, Fake(often_fails))
    failed = [t for t in search.trials if t.state is TrialState.FAILED]
    assert len(search.trials) == 20 + len(PLAN)
    assert 0 < len(failed) < len(search.trials)
    assert all(t.score is None and f"no memory for {t.widths}" in (t.error or "") for t in failed)


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf, None, "0.9", torch.ones(2), torch.tensor(math.nan)])
def test_what_is_not_a_finite_number_is_a_failed_candidate(tmp_path: Path, score: object) -> None:
    answers = [score, 0.5]
    search = session(tmp_path, trials=0)
    local.run(search, Fake(lambda widths, seed: answers.pop(0)))
    if score == "0.9":
        assert search.trials[0].score == 0.9  # it is a number, if a curious one
    else:
        assert search.trials[0].state is TrialState.FAILED
        assert search.trials[0].error
    assert search.trials[1].score == 0.5


def test_an_outcome_has_a_finite_score_or_an_error() -> None:
    for score in (math.nan, math.inf):
        with pytest.raises(EvaluationError, match="not a finite number"):
            Outcome(score)
    with pytest.raises(EvaluationError, match="needs the error"):
        Outcome(None)


@pytest.mark.parametrize("trials", [1, 50])
def test_a_search_in_which_all_fail_stops_with_the_first_error(tmp_path: Path, trials: int) -> None:
    evaluator = Fake(lambda widths, seed: 1 / 0 if evaluator.calls[1:] else int("first"))
    search = session(tmp_path, trials=trials)
    with pytest.raises(EvaluationError, match=r"(?s)ValueError: .*'first'.*tracebacks are in the ledger"):
        local.run(search, evaluator)
    assert len(search.trials) == min(HOPELESS, search.total)


def test_one_success_among_the_first_is_hope_enough(tmp_path: Path) -> None:
    evaluator = Fake(lambda widths, seed: 1.0 if len(evaluator.calls) == HOPELESS else 1 / 0)
    search = session(tmp_path, trials=30)
    local.run(search, evaluator)
    assert len(search.trials) == search.total


@pytest.mark.parametrize("controller", CONTROLLERS)
@pytest.mark.parametrize("unfinished", [False, True])
def test_a_search_stopped_anywhere_goes_on_as_if_it_had_not_been(
    tmp_path: Path, controller: str, unfinished: bool
) -> None:
    whole = finished(tmp_path / "whole", controller=controller).trials
    stops = range(0, len(whole), 1 if controller == "random" else 5)
    for stop in stops:
        part = tmp_path / str(stop)
        search = session(part, controller=controller)
        for _ in range(stop):
            _step(search)
        if unfinished:
            search.ask()
        resumed = session(part, controller=controller)
        assert gist(resumed.trials) == gist(whole[:stop])
        local.run(resumed, Fake(noisy))
        assert gist(resumed.trials) == gist(whole)


@pytest.mark.parametrize("controller", CONTROLLERS)
def test_three_at_a_time_in_any_order_resume_too(tmp_path: Path, controller: str) -> None:
    whole = _Crew(session(tmp_path / "whole", controller=controller))
    whole.work(30)
    assert [t.number for t in whole.search.trials] != sorted(t.number for t in whole.search.trials)
    for stop in (1, 8, 15):
        folder = tmp_path / str(stop)
        crew = _Crew(session(folder, controller=controller))
        crew.work(stop)
        crew.take_over(session(folder, controller=controller))
        crew.work(30 - stop)
        assert gist(crew.search.trials) == gist(whole.search.trials)


class Following(Evaluator):
    """A score that depends on the best candidates so far, as a race's does."""

    follows = 3

    def __init__(self) -> None:
        self.told: list[tuple[Widths, ...]] = []

    def evaluate(self, widths: Widths, *, seed: int, full: bool = False, incumbents: tuple[Widths, ...] = ()) -> float:
        self.told.append(incumbents)
        return noisy(widths, seed) + sum(map(sum, incumbents)) % 7 / 10


def test_evaluators_that_follow_are_told_of_the_best_so_far(tmp_path: Path) -> None:
    search, evaluator = session(tmp_path), Following()
    local.run(search, evaluator)
    assert [len(told) for told in evaluator.told[:5]] == [0, 1, 2, 3, 3]
    for number, told in enumerate(evaluator.told):
        inside = [t for t in search.trials[:number] if ROOMY.feasible(np.array([t.widths]))[0]]
        assert list(told) == [t.widths for t in sorted(inside, key=lambda t: -(t.score or 0.0))][:3]


@pytest.mark.parametrize("unfinished", [False, True])
def test_a_search_whose_evaluator_follows_resumes_exactly(tmp_path: Path, unfinished: bool) -> None:
    search = session(tmp_path / "whole")
    local.run(search, Following())
    whole = gist(search.trials)
    for stop in range(0, len(whole), 2):
        part = session(tmp_path / str(stop))
        evaluator = Following()
        for _ in range(stop):
            asked = part.ask()
            assert asked is not None
            part.tell(asked, local.evaluate(evaluator, asked.widths, seed=asked.seed, incumbents=asked.incumbents))
        if unfinished:
            part.ask()
        resumed = session(tmp_path / str(stop))
        local.run(resumed, Following())
        assert gist(resumed.trials) == whole


def test_another_seed_of_the_controller_is_refused(tmp_path: Path) -> None:
    finished(tmp_path)
    with pytest.raises(RunError, match=r"diverged at trial 2: .*start a new run"):
        session(tmp_path, controller_seed=1)


def test_another_plan_is_refused(tmp_path: Path) -> None:
    finished(tmp_path)
    with pytest.raises(RunError, match="diverged at trial 0"):
        session(tmp_path, plan=PLAN[::-1])


@pytest.mark.parametrize("given", [None, [], "ab", [(1,)], [(-1, 1, 1)], [(math.nan,) * 3], [(0.5, 0.5, 0.5)]])
def test_a_controller_that_proposes_nonsense_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: object
) -> None:
    search = session(tmp_path)
    monkeypatch.setattr(search._controller, "ask", lambda n: given)
    with pytest.raises(ConfigError, match=r"must propose a list of one tuple of allowed widths, got .* its code"):
        local.run(search, Fake(noisy))
    assert len(search.trials) == len(PLAN)


def test_numbers_of_numpy_are_widths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search = session(tmp_path)
    monkeypatch.setattr(search._controller, "ask", lambda n: [np.array(ROOMY.space.smallest)])
    local.run(search, Fake(noisy))
    assert search.trials[-1].widths == ROOMY.space.smallest
    assert all(type(width) is int for width in search.trials[-1].widths)


def _step(search: SearchSession) -> None:
    assignment = search.ask()
    assert assignment is not None
    search.tell(assignment, Outcome(noisy(assignment.widths, assignment.seed)))


class _Crew:
    """Up to three evaluations at a time, ending in random order."""

    def __init__(self, search: SearchSession) -> None:
        self.search = search
        self._rng = Random(3)
        self._open: list[Assignment] = []

    def work(self, steps: int) -> None:
        for _ in range(steps):
            if len(self._open) < 3 and (assignment := self.search.ask()) is not None:
                self._open.append(assignment)
            elif self._open:
                done = self._open.pop(self._rng.randrange(len(self._open)))
                self.search.tell(done, Outcome(noisy(done.widths, done.seed)))

    def take_over(self, search: SearchSession) -> None:
        """Go on with a new session: what was open is handed out again."""
        again = [search.ask() for _ in self._open]
        assert sorted(a.number for a in again if a) == sorted(a.number for a in self._open)
        self.search = search
