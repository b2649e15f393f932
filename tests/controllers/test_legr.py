from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from smooth import FULL, half_of, loss, search

from autoprune.allocation.global_threshold import global_threshold
from autoprune.controllers import make_controller
from autoprune.controllers.base import Trial, TrialState
from autoprune.controllers.legr import LeGR, cut_by_ranking
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import ConfigError
from autoprune.space.groups import FloatArray
from autoprune.testing.spaces import chain_space


def importances(seed: int = 0) -> list[FloatArray]:
    rng = np.random.default_rng(seed)
    return [np.abs(rng.standard_normal(width)) * scale for width, scale in zip(FULL, range(1, 9), strict=True)]


def test_the_first_map_is_the_plain_global_ranking() -> None:
    """Where nothing is scaled or shifted, LeGR is the global threshold."""
    domain = BudgetedSpace(chain_space(FULL), {"flops": "50%"})
    (first,) = LeGR(domain, seed=0, importance=importances()).ask()
    threshold = global_threshold(domain, importances(), normalise="none")
    assert np.abs(np.array(first) - threshold).max() <= 1


def test_scaling_and_shifting_a_group_up_keeps_more_of_it() -> None:
    domain = half_of()
    plain = np.stack([np.ones(8), np.zeros(8)])
    scaled, shifted = plain.copy(), plain.copy()
    scaled[0, 2], shifted[1, 2] = 3.0, 2.0
    at = [cut_by_ranking(domain, importances(), maps)[2] for maps in (plain, scaled, shifted)]
    assert at[1] > at[0]
    assert at[2] > at[0]


def test_a_search_for_another_budget_begins_with_the_best_map_so_far() -> None:
    first = LeGR(half_of(), seed=0, trials=60, importance=importances())
    assert first.learned() is None
    found = search(first, lambda widths: -loss(widths, 0), 60)
    quarter = BudgetedSpace(chain_space(FULL), {"flops": "25%"})
    learned = first.learned()
    assert learned is not None
    second = LeGR(quarter, seed=0, trials=60, importance=importances(), learned=learned)
    proposals = second.ask(2)
    assert proposals[0] == cut_by_ranking(quarter, importances(), np.array(learned))
    plain = np.stack([np.ones(8), np.zeros(8)])
    assert proposals[1] == cut_by_ranking(quarter, importances(), plain)
    best = max(found, key=lambda pair: pair[1])[0]
    assert cut_by_ranking(half_of(), importances(), np.array(learned)) == best
    assert loss(proposals[0], 0) < loss(proposals[1], 0), "what was learned at half of the FLOPs is worth something"


def test_what_was_learned_is_refined_not_drawn_anew() -> None:
    learned = np.stack([np.exp(np.random.default_rng(1).standard_normal(8)), np.zeros(8)])
    given = np.log(cut_by_ranking(half_of(), importances(), learned))

    def distance(begun_with: list[list[float]] | None) -> float:
        """Median distance of the next proposals from the map's widths, after the first two are told."""
        controller = LeGR(half_of(), seed=0, trials=60, importance=importances(), learned=begun_with)
        trials = [Trial(i, widths, TrialState.COMPLETE, -float(i)) for i, widths in enumerate(controller.ask(2))]
        controller.tell(trials)
        return float(np.median([np.abs(np.log(widths) - given).mean() for widths in controller.ask(10)]))

    assert distance(learned.tolist()) < 0.4 * distance(None)


def test_a_map_of_another_space_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"8 groups, finite numbers, got shape \(2, 3\)"):
        LeGR(half_of(), seed=0, learned=[[1.0] * 3, [0.0] * 3])


def test_one_ranking_serves_every_budget() -> None:
    """A smaller budget takes channels away and never gives a group more (but for rounding)."""
    maps = np.stack([np.exp(np.random.default_rng(1).standard_normal(8)), np.zeros(8)])
    widths = [
        np.array(cut_by_ranking(BudgetedSpace(chain_space(FULL), {"flops": f"{share}%"}), importances(), maps))
        for share in (80, 60, 40, 20)
    ]
    for larger, smaller in pairwise(widths):
        assert (smaller <= larger + 1).all()
        assert smaller.sum() < larger.sum()


def test_importances_reach_it_through_make_controller() -> None:
    domain = half_of()
    flat = [np.ones(64)] * 7 + [np.full(64, 1e-6)]
    (first,) = make_controller("legr", domain, seed=0, settings={}, importance=flat).ask()
    assert first[7] == domain.space.smallest[7]
    assert min(first[:7]) > 30


def test_children_come_from_good_maps() -> None:
    found = search(LeGR(half_of(), seed=0, trials=160), lambda w: -loss(w, 0), 160)
    losses = [-score for _, score in found]
    assert np.mean(losses[-40:]) < 0.6 * np.mean(losses[:40])


def test_it_learns_where_its_first_widths_are_known_already() -> None:
    """Without importances these are the uniform ones of this space, which every search is told first."""
    domain = half_of()
    assert LeGR(domain, seed=0).ask() == [domain.uniform()]
    controller = LeGR(domain, seed=0, trials=160)
    controller.tell([Trial(-1, domain.uniform(), TrialState.COMPLETE, -loss(domain.uniform(), 0))])
    losses = [-score for _, score in search(controller, lambda w: -loss(w, 0), 160)]
    assert np.mean(losses[-40:]) < 0.6 * np.mean(losses[:40])


@pytest.mark.parametrize(("state", "score"), [(TrialState.COMPLETE, 1.0), (TrialState.FAILED, None)])
def test_the_first_map_is_a_member_where_others_had_it_scored(state: TrialState, score: float | None) -> None:
    domain = half_of()
    controller = LeGR(domain, seed=0)
    controller.tell([Trial(0, domain.uniform(), state, score)])
    assert controller.ask() != [domain.uniform()]
    assert [known for _, known in controller._population] == ([] if score is None else [score])
    controller.tell([Trial(1, domain.uniform(), TrialState.COMPLETE, 3.0)])
    (scale, shift), latest = controller._population[-1]
    assert (scale == 1).all()
    assert (shift == 0).all()
    assert latest == 3.0


@pytest.mark.parametrize(
    ("importance", "message"),
    [
        ([np.ones(64)] * 7, "7 groups given for a space of 8"),
        ([np.ones(63)] * 8, "needs 64 finite importances"),
        ([np.full(64, np.nan)] * 8, "needs 64 finite importances"),
    ],
)
def test_importances_that_do_not_fit_are_refused(importance: list[FloatArray], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LeGR(half_of(), seed=0, importance=importance)
