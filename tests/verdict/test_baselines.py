from __future__ import annotations

import numpy as np
import pytest

from autoprune.controllers.base import Trial, TrialState
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import BudgetError, ConfigError, RegistryError
from autoprune.space.groups import FloatArray, SearchSpace, WidthGroup, Widths
from autoprune.testing.spaces import chain_space
from autoprune.verdict.baselines import RANDOM, UNIFORM, arms, curve_budgets, plan

SPACE = chain_space((16, 24, 32))
DOMAIN = BudgetedSpace(SPACE, {"flops": "50%"})
SCORES: list[FloatArray] = [np.arange(group.width, dtype=np.float64) for group in SPACE.groups]


def planned(domain: BudgetedSpace = DOMAIN, *, seed: int = 0) -> list[tuple[str, Widths]]:
    return plan(domain, SCORES, allocations=["global_threshold"], random_candidates=4, seed=seed)


def test_uniform_comes_first_then_allocations_then_random() -> None:
    assert [origin for origin, _ in planned()] == [*UNIFORM, "global_threshold", *[RANDOM] * 4]


def test_every_baseline_uses_the_same_budget() -> None:
    usage = DOMAIN.budget.usage(np.array([widths for _, widths in planned()]))
    assert (usage <= 1).all()
    assert (usage >= 0.97).all()


def test_only_the_random_ones_depend_on_the_seed() -> None:
    a, b = planned(seed=0), planned(seed=1)
    assert a == planned(seed=0)
    assert a[:3] == b[:3]
    assert a[3:] != b[3:]


def test_an_allocation_is_scored_once_however_often_it_is_named() -> None:
    twice = plan(DOMAIN, SCORES, allocations=["uniform_all", "uniform_all"], random_candidates=1, seed=0)
    assert [origin for origin, _ in twice] == [*UNIFORM, RANDOM]
    with pytest.raises(RegistryError):
        plan(DOMAIN, SCORES, allocations=["unifrom_all"], random_candidates=1, seed=0)


def test_one_rule_with_other_settings_is_another_proposal_under_a_name_of_its_own() -> None:
    scores = [score + 10.0 * index for index, score in enumerate(SCORES)]
    given = ["global_threshold", {"name": "global_threshold", "settings": {"normalise": "none"}}]
    proposals = dict(plan(DOMAIN, scores, allocations=given, random_candidates=0, seed=0))
    assert list(proposals) == [*UNIFORM, "global_threshold", 'global_threshold(normalise="none")']
    assert proposals["global_threshold"] != proposals['global_threshold(normalise="none")']
    with pytest.raises(ConfigError, match="allocation 'uniform_all' has no setting 'ratio'; it has no settings"):
        plan(
            DOMAIN, scores, allocations=[{"name": "uniform_all", "settings": {"ratio": 1}}], random_candidates=0, seed=0
        )


def test_uniform_inner_is_left_out_where_full_residuals_are_over_the_budget() -> None:
    residual = tuple(WidthGroup(g.name, g.width, g.choices, g.members, residual=True) for g in SPACE.groups)
    domain = BudgetedSpace(SearchSpace(residual, (), SPACE.operations, SPACE.tensors), {"flops": "50%"})
    assert [origin for origin, _ in planned(domain)][:2] == ["uniform_all", "global_threshold"]
    with pytest.raises(BudgetError):
        domain.uniform(inner_only=True)


def finished(scores: dict[str, list[float | None]]) -> list[Trial]:
    members = [tuple(map(int, row)) for row in DOMAIN.sample(40, np.random.default_rng(1))]
    flat = [(origin, score) for origin, found in scores.items() for score in found]
    return [
        Trial(i, members[i], TrialState.FAILED if s is None else TrialState.COMPLETE, s, origin=origin)
        for i, (origin, s) in enumerate(flat)
    ]


def test_the_winner_meets_both_uniforms_and_the_median_random_network() -> None:
    trials = finished(
        {"uniform_all": [0.5], "uniform_inner": [0.4], RANDOM: [0.1, 0.3, 0.2], "controller": [0.9, None]}
    )
    winner = trials[-2].widths
    rescored = {winner: 0.8, trials[0].widths: 0.45, trials[4].widths: 0.25}
    compared = arms(DOMAIN, trials, winner, rescored)
    assert [(arm.name, arm.search_score, arm.evaluations) for arm in compared] == [
        ("winner", 0.8, 6),
        ("uniform_all", 0.45, 1),
        ("uniform_inner", None, 1),
        ("random_median", 0.25, 3),
    ]
    assert compared[3].widths == trials[4].widths
    assert all(arm.costs == DOMAIN.budget.costs_of(arm.widths) for arm in compared)
    *_, median = arms(DOMAIN, trials, winner, {winner: 0.8})
    assert median.search_score is None, "a trial's score is another thing"


def test_a_uniform_network_that_could_not_be_scored_is_still_compared() -> None:
    trials = finished({"uniform_all": [None], RANDOM: [None], "controller": [0.9]})
    assert [arm.name for arm in arms(DOMAIN, trials, trials[2].widths, {trials[2].widths: 0.9})] == [
        "winner",
        "uniform_all",
    ]


def test_the_uniform_curve_ascends_around_the_budget_and_stays_below_full() -> None:
    curve = curve_budgets(DOMAIN)
    costs = [DOMAIN.budget.costs_of(widths)["flops"] for widths in curve]
    assert costs == sorted(set(costs))
    assert DOMAIN.uniform() in curve
    assert costs[0] < DOMAIN.budget.costs_of(DOMAIN.uniform())["flops"] < costs[-1]
    assert SPACE.full not in curve


def test_a_second_limit_that_does_not_bind_changes_nothing_of_the_curve() -> None:
    both = BudgetedSpace(SPACE, {**DOMAIN.budget.constraints, "params": "100%"})
    assert curve_budgets(both) == curve_budgets(DOMAIN)


def test_the_curve_of_a_budget_that_does_not_bind_is_short() -> None:
    loose = BudgetedSpace(SPACE, {"flops": "100%"})
    assert all(widths != SPACE.full for widths in curve_budgets(loose))
