from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from smooth import FULL, half_of, loss, search

from autoprune.controllers import make_controller
from autoprune.controllers.base import Trial, TrialState
from autoprune.controllers.pareto import Pareto, crowding_distances, nondominated_ranks
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import BudgetError, ConfigError
from autoprune.testing.controllers import drive
from autoprune.testing.spaces import chain_space


def test_ranks_are_those_of_the_definition() -> None:
    """Front by front: what no point left dominates."""
    objectives = np.random.default_rng(0).integers(0, 6, (60, 3)).astype(np.float64)
    ranks = nondominated_ranks(objectives)
    left = set(range(60))
    for front in itertools.count():
        best = {
            i
            for i in left
            if not any((objectives[j] <= objectives[i]).all() and (objectives[j] < objectives[i]).any() for j in left)
        }
        assert {i for i in left if ranks[i] == front} == best
        left -= best
        if not left:
            break


def test_crowding_is_the_box_between_neighbours() -> None:
    front = np.array([[0.0, 10.0], [1.0, 6.0], [2.0, 5.0], [4.0, 0.0]])
    expected = [np.inf, 2 / 4 + 5 / 10, 3 / 4 + 6 / 10, np.inf]
    assert crowding_distances(front) == pytest.approx(expected)
    assert crowding_distances(front[::-1]) == pytest.approx(expected[::-1])
    assert np.isinf(crowding_distances(np.ones((2, 2)))).all()


def run(trials: int = 150, **settings: object) -> tuple[Pareto, BudgetedSpace]:
    domain = half_of()
    controller = Pareto(domain, seed=0, trials=trials, **settings)  # type: ignore[arg-type]
    search(controller, lambda w: -loss(w, 1), trials)
    return controller, domain


def test_one_search_serves_all_budgets() -> None:
    controller, domain = run()
    used = domain.budget.usage(np.array(list(controller._history.scores)))
    for low, high in ((0.9, 1.0), (0.7, 0.76), (0.45, 0.51)):
        assert ((used >= low) & (used <= high)).sum() > 20
    winners = controller.winners()
    assert list(winners) == [1.0, 0.75, 0.5]
    for share, widths in winners.items():
        sub = domain.scaled(share)
        assert sub.feasible(np.array([widths]))[0]
        assert loss(widths, 1) < loss(sub.uniform(), 1)


def test_the_front_holds_what_nothing_beats() -> None:
    controller, domain = run()
    front = controller.front()
    cost = domain.budget.usage
    everything = controller._history.scores
    for widths, score in front.items():
        here = cost(np.array([widths]))[0]
        assert not any(s >= score and cost(np.array([w]))[0] < here for w, s in everything.items() if w != widths)
    assert list(front.values()) == sorted(front.values(), reverse=True)  # one metric: costlier is better
    assert len(front) > 5


def test_metrics_beside_the_budgets_can_be_traded() -> None:
    """With parameters as a metric, networks that are no cheaper in FLOPs but have fewer parameters survive."""
    space = chain_space((64, 64, 64), levels=16)
    shrinking = [replace(op, coefficient=op.coefficient // 16**i) for i, op in enumerate(space.operations[:-1])]
    domain = BudgetedSpace(replace(space, operations=(*shrinking, space.operations[-1])), {"flops": "50%"})
    fronts = {}
    for metrics in (["flops"], ["flops", "params"]):
        controller = Pareto(domain, seed=0, trials=120, budgets=(), metrics=metrics)
        search(controller, lambda w: float(np.log(np.array(w)).sum()), 120)
        fronts[len(metrics)] = controller.front()
    assert len(fronts[2]) > 2 * len(fronts[1])


def test_without_scores_there_is_no_front() -> None:
    controller = Pareto(half_of(), seed=0)
    controller.tell([Trial(0, FULL, TrialState.FAILED, None)])
    assert controller.front() == {}
    assert controller.winners() == {}


def test_a_trial_that_was_stopped_early_is_neither_a_winner_nor_in_the_front() -> None:
    domain = half_of()
    controller = Pareto(domain, seed=0)
    members = [tuple(map(int, row)) for row in domain.sample(12, np.random.default_rng(0))]
    stopped = members.pop()
    controller.tell([Trial(0, stopped, TrialState.PRUNED, 0.95)])
    assert controller.front() == {}
    assert controller.winners() == {}
    controller.tell([Trial(1 + i, w, TrialState.COMPLETE, 0.80 + 0.001 * i) for i, w in enumerate(members)])
    assert members[-1] in controller.front()
    assert stopped not in controller.front()
    assert controller.winners()[1.0] in members


def test_trials_that_were_stopped_early_do_not_change_who_wins() -> None:
    """Their scores say little of whole trainings: how far they are behind is not known here."""
    domain = half_of()
    rows = [tuple(map(int, row)) for row in domain.sample(40, np.random.default_rng(0))]
    complete = [Trial(i, widths, TrialState.COMPLETE, -loss(widths, 0)) for i, widths in enumerate(rows[:20])]
    stopped = [Trial(20 + i, widths, TrialState.PRUNED, -30.0 + i) for i, widths in enumerate(rows[20:])]
    winners = []
    for trials in (complete, [*complete, *stopped]):
        controller = Pareto(domain, seed=0)
        controller.tell(trials)
        winners.append(controller.winners())
    assert winners[0] == winners[1]


def test_a_search_for_one_budget_can_stay_near_the_best_trial() -> None:
    settings = {"budgets": [], "trust_region": 0.5}
    controller = make_controller("pareto", half_of(), seed=0, settings=settings, trials=20)
    search(controller, lambda w: -loss(w, 1), 20)
    assert list(controller.winners()) == [1.0]


def test_several_budgets_of_fewer_groups_are_still_several() -> None:
    settings = {"per": "block"}
    assert not make_controller("pareto", half_of(), seed=0, settings=settings).one_budget
    assert make_controller("pareto", half_of(), seed=0, settings={**settings, "budgets": []}).one_budget


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"budgets": [1.5]}, ConfigError, "shares of the job's budget"),
        ({"budgets": [1e-6]}, BudgetError, "1e-06 times the budget cannot be used"),
        ({"trust_region": 0.5}, ConfigError, "Pareto searches for several budgets and trust_region 0.5"),
        ({"trust_region": 0.5, "per": "block"}, ConfigError, r"set budgets to \[\]"),
        ({"metrics": ["flop"]}, ConfigError, "Did you mean 'flops'"),
        ({"metrics": []}, ConfigError, "at least one"),
        ({"population": 1}, ConfigError, "population must be at least 2"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make_controller("pareto", half_of(), seed=0, settings=settings)


def test_smaller_budgets_survive_under_a_limit_with_a_lower_end() -> None:
    domain = BudgetedSpace(chain_space((32, 48, 64, 48), levels=16), {"flops": {"min": "45%", "max": "50%"}})
    controller = make_controller("pareto", domain, seed=0, settings={}, trials=60)
    assert not controller.keeps_budget
    drive(controller, 15, score=lambda w: sum(map(math.log, w)))
    usage = domain.budget.usage(np.array(controller._population))  # type: ignore[attr-defined]
    assert (usage < 0.55).any()
    assert (usage <= 1).all()
    assert list(controller.winners()) == [1.0, 0.75, 0.5]
