from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from autoprune.controllers.base import Trial, TrialState
from autoprune.controllers.partial_order import PartialOrder
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import ConfigError
from autoprune.testing.controllers import drive, roomy_domain, score_of
from autoprune.testing.spaces import chain_space


def told(controller: PartialOrder, scores: dict[tuple[int, ...], float]) -> None:
    controller.tell([Trial(n, w, TrialState.COMPLETE, s) for n, (w, s) in enumerate(scores.items())])


def test_what_scores_rule_out_is_what_two_loops_over_the_definition_rule_out() -> None:
    domain = BudgetedSpace(chain_space((6, 6, 6)), {"flops": "100%"})
    controller = PartialOrder(domain, seed=0)
    rng = np.random.default_rng(0)
    scores = {tuple(map(int, rng.integers(1, 7, 3))): float(rng.random()) for _ in range(12)}
    told(controller, scores)

    def cost(widths: tuple[int, ...]) -> float:
        return float(domain.budget.usage(np.array([widths]))[0])

    def ruled_out(widths: tuple[int, ...]) -> bool:
        return any(
            good >= bad
            and widths != dear
            and all(a <= b for a, b in zip(widths, dear, strict=True))
            and cost(widths) >= cost(cheap)
            for (cheap, good), (dear, bad) in product(scores.items(), repeat=2)
        )

    every = [tuple(row) for row in product(*(group.choices for group in domain.space.groups))]
    assert controller.ruled_out(np.array(every)).tolist() == [ruled_out(widths) for widths in every]
    assert 0 < sum(map(ruled_out, every)) < len(every)


def test_the_boundary_is_what_nothing_cheaper_is_better_than() -> None:
    domain = roomy_domain()
    controller = PartialOrder(domain, seed=0)
    drive(controller, 5)
    found = {tuple(map(int, row)) for row in controller.boundary()}
    scores = controller._history.scores
    cost = dict(zip(scores, domain.budget.usage(np.array(list(scores))), strict=True))
    assert found == {w for w in scores if not any(cost[o] <= cost[w] and scores[o] > scores[w] for o in scores)}


def test_proposals_lie_on_several_budgets_and_none_is_ruled_out_while_others_are_left() -> None:
    domain = BudgetedSpace(chain_space((16, 24, 32, 24, 16)), {"flops": "50%"})
    controller = PartialOrder(domain, seed=0, startup=8)
    asked: list[tuple[int, ...]] = []
    out = 0
    for number in range(60):
        (widths,) = controller.ask()
        out += bool(controller.ruled_out(np.array([widths]))[0])
        controller.tell([Trial(number, widths, TrialState.COMPLETE, score_of(widths))])
        asked.append(widths)
    usage = domain.budget.usage(np.array(asked))
    assert usage.max() <= 1
    assert usage.min() < 0.6
    assert out == 0


def test_the_winner_is_the_best_complete_network_inside_the_budget() -> None:
    domain = roomy_domain()
    controller = PartialOrder(domain, seed=0)
    assert controller.winners() == {}
    asked = drive(controller, 8)
    best = max(asked, key=score_of)
    winner = controller.winners()[1.0]
    assert winner in asked
    assert score_of(winner) >= score_of(best) - 0.05


@pytest.mark.parametrize("settings", [{"least": 0.0}, {"least": 1.5}, {"budgets": 0}, {"startup": 0}])
def test_wrong_settings_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"partial_order: {next(iter(settings))} must be"):
        PartialOrder(roomy_domain(), seed=0, **settings)  # type: ignore[arg-type]


def test_there_is_a_winner_of_every_budget_and_none_below_a_lower_end() -> None:
    domain = BudgetedSpace(chain_space((32, 48, 64, 48), levels=16), {"flops": {"min": "35%", "max": "50%"}})
    controller = PartialOrder(domain, seed=0, least=0.5, budgets=6)
    asked = np.array(drive(controller, 10, score=lambda w: sum(map(math.log, w))))
    assert domain.feasible(asked).all()
    winners = controller.winners()
    assert list(winners) == pytest.approx([1.0, 0.9, 0.8])  # those above 35 %
    for share, widths in winners.items():
        assert domain.scaled(share).budget.usage(np.array([widths]))[0] <= 1
