from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from smooth import half_of

from autoprune.controllers.base import Trial, TrialState
from autoprune.controllers.knapsack_plus import KnapsackPlus
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import ConfigError
from autoprune.space.groups import Widths
from autoprune.testing.controllers import drive, score_of
from autoprune.testing.spaces import chain_space

_FULL = (8, 10, 12)


def additive(widths: Widths) -> float:
    return -sum((i + 1) * (1 - w / full) ** 2 for i, (w, full) in enumerate(zip(widths, _FULL, strict=True)))


def test_after_the_table_comes_the_exact_optimum_where_losses_add_up() -> None:
    domain = BudgetedSpace(chain_space(_FULL), {"flops": "40%"})
    controller = KnapsackPlus(domain, seed=0, points=20)
    table = controller.ask(1 + sum(full - 1 for full in _FULL))
    assert table[0] == domain.space.full
    assert all(sum(w != f for w, f in zip(row, _FULL, strict=True)) == 1 for row in table[1:])
    assert len(set(table)) == len(table)
    controller.tell([Trial(n, w, TrialState.COMPLETE, additive(w)) for n, w in enumerate(table)])
    every = np.array(list(product(*(group.choices for group in domain.space.groups))))
    inside = every[domain.feasible(every)]
    assert additive(controller.ask()[0]) == max(additive(tuple(row)) for row in inside)


def test_half_of_a_short_search_is_table_and_one_point_of_each_group_comes_first() -> None:
    domain = BudgetedSpace(chain_space((16, 24, 32, 24, 16)), {"flops": "50%"})
    asked = drive(KnapsackPlus(domain, seed=0, trials=24), 6)
    full = domain.space.full
    changed = [[i for i, (w, f) in enumerate(zip(row, full, strict=True)) if w != f] for row in asked[:11]]
    assert changed[0] == []
    assert sorted(c[0] for c in changed[1:6]) == [0, 1, 2, 3, 4]
    assert all(len(c) == 1 for c in changed[1:11])  # two points of each fit
    assert domain.feasible(np.array(asked))[11:].all()


def test_proposals_after_the_optimum_stay_near_the_best() -> None:
    domain = BudgetedSpace(chain_space((64,) * 6), {"flops": "40%"})
    controller = KnapsackPlus(domain, seed=0, trials=40, distance=0.2)
    asked = drive(controller, 10, score=lambda w: -sum((math.log(x / 64) + 0.2 * i) ** 2 for i, x in enumerate(w)))
    inside = [w for w, keeps in zip(asked, domain.feasible(np.array(asked)), strict=True) if keeps]
    ratios = np.log(np.array(inside) / 64)
    assert np.median(np.abs(ratios[1:] - ratios[0]).max(axis=1)) < 0.8


def test_the_optimum_is_looked_for_again_only_when_the_table_has_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    optimum = KnapsackPlus.optimum
    monkeypatch.setattr(KnapsackPlus, "optimum", lambda self: looked.append(1) or optimum(self))
    domain = BudgetedSpace(chain_space((16, 24, 32, 24, 16)), {"flops": "30%"})
    drive(KnapsackPlus(domain, seed=0, trials=24), 6)  # 11 of them are the table, told four at a time
    assert 1 <= len(looked) <= 3


def test_without_a_score_of_the_full_network_it_begins_with_uniform_widths() -> None:
    domain = half_of()
    controller = KnapsackPlus(domain, seed=0, trials=4)
    controller.tell([Trial(n, w, TrialState.FAILED, None) for n, w in enumerate(controller.ask(2))])
    assert controller.ask()[0] == domain.uniform()


def test_it_ends_better_than_the_optimum_it_began_with() -> None:
    domain = BudgetedSpace(chain_space((16, 24, 32, 24, 16)), {"flops": "30%"})
    asked = drive(KnapsackPlus(domain, seed=2, trials=40), 10)
    inside = [w for w, keeps in zip(asked, domain.feasible(np.array(asked)), strict=True) if keeps]
    assert max(map(score_of, inside)) > score_of(inside[0])


@pytest.mark.parametrize("settings", [{"points": 0}, {"table": 1.0}, {"table": 0.0}])
def test_wrong_settings_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"knapsack_plus: {next(iter(settings))} must be"):
        KnapsackPlus(half_of(), seed=0, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("trials", [16, 32, 80])
@pytest.mark.parametrize("exponent", [-0.3, -1.5])
def test_few_points_of_each_group_lead_above_uniform_and_not_into_the_corners(trials: int, exponent: float) -> None:
    """Losses that add up, by another law than the one that stands between the points."""
    full = (16, 16, 32, 32, 64, 64, 64, 64)
    domain = BudgetedSpace(chain_space(full, levels=16), {"flops": "50%"})
    weights = np.random.default_rng(1).uniform(0.5, 1.5, len(full))

    def score(widths: Widths) -> float:
        return -float((weights * ((np.array(widths) / full) ** exponent - 1)).sum())

    controller = KnapsackPlus(domain, seed=0, trials=trials)
    for number in range(trials // 2):
        (widths,) = controller.ask()
        controller.tell([Trial(number, widths, TrialState.COMPLETE, score(widths))])
    assert score(controller.optimum()) > score(domain.uniform())
