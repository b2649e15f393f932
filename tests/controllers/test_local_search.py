"""Annealing, the bee colony and the trust region: where they look, and when they move."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from smooth import FULL, half_of, loss, search

from autoprune.controllers import make_controller
from autoprune.controllers.annealing import Annealing
from autoprune.controllers.base import Controller, Trial, TrialState
from autoprune.controllers.bee_colony import BeeColony
from autoprune.controllers.evolution import Evolution
from autoprune.controllers.random_search import RandomSearch
from autoprune.controllers.wrappers.trust_region import TrustRegion
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import ConfigError
from autoprune.space.groups import Widths
from autoprune.testing.spaces import chain_space


def distance(a: Widths, b: Widths) -> float:
    """Largest difference of log ratios, but for the one factor that repair applies to all."""
    logs = np.log(np.array(a) / np.array(b))
    return float(np.ptp(logs) / 2)


def fine() -> BudgetedSpace:
    return BudgetedSpace(chain_space((512,) * 6), {"flops": "50%"})


def test_annealing_begins_at_uniform_and_its_moves_shrink() -> None:
    domain = fine()
    controller = Annealing(domain, seed=0, trials=100)
    found = search(controller, lambda _: 0.0, 100)  # equal scores: every move is accepted
    assert found[0][0] == domain.uniform()
    moves = [distance(a, b) for (a, _), (b, _) in zip(found[1:], found, strict=False)]
    assert np.mean(moves[-20:]) < 0.4 * np.mean(moves[:20])


def accepted(stop: float, *, collapse: float = 1.0) -> float:
    """Share of clearly worse moves that become the current point; the fourth one loses as much as `collapse`."""
    domain = fine()
    controller = Annealing(domain, seed=1, trials=20, start=1.0, stop=stop)
    worse = 0
    for number in range(400):
        before = controller._current
        score = 0.0 if number % 2 or not number else -collapse if number == 8 else -1.0
        controller.tell([Trial(number, controller.ask()[0], TrialState.COMPLETE, score)])
        worse += number % 2 == 0 and controller._current != before
    return worse / 200


def test_annealing_accepts_worse_trials_while_it_is_hot_only() -> None:
    assert accepted(stop=1.0) == pytest.approx(np.exp(-1), abs=0.12)
    assert accepted(stop=0.02) < 0.1


def test_one_network_that_collapses_does_not_heat_the_rest_of_the_search() -> None:
    assert accepted(stop=0.02, collapse=1e3) == accepted(stop=0.02)


def test_a_bee_changes_two_groups_of_a_source() -> None:
    domain = fine()
    controller = BeeColony(domain, seed=0)
    search(controller, lambda w: float(w[0]), 10)
    for look in controller.ask(10):
        source = controller._looks[look].widths
        moved = np.log(np.array(look) / np.array(source))
        up, down = int((moved > 0.01).sum()), int((moved < -0.01).sum())  # repair moves all others the same way
        assert look != source
        assert min(up, down) <= 2


def test_a_source_without_improvement_is_left_for_a_random_one() -> None:
    domain = half_of()
    controller = BeeColony(domain, seed=0, sources=4, limit=3)
    found = search(controller, lambda w: 1.0 if len(controller._sources) < 4 else 0.0, 4)
    assert len(controller._sources) == 4
    known = {source.widths for source in controller._sources}
    search(controller, lambda _: 0.0, 40)  # nothing is better than what the sources have
    assert not known & {source.widths for source in controller._sources if source.score == 1.0}
    assert {widths for widths, _ in found} == known


def test_widths_that_are_told_twice_are_one_source() -> None:
    """Uniform pruning with and without residual groups, where there are none."""
    domain = half_of()
    controller = BeeColony(domain, seed=0, sources=4)
    members = [tuple(map(int, row)) for row in domain.sample(5, np.random.default_rng(0))]
    told = [members[0], members[0], *members[:4], members[3], members[4]]
    controller.tell([Trial(i, widths, TrialState.COMPLETE, float(i)) for i, widths in enumerate(told)])
    assert {source.widths for source in controller._sources} == set(members[1:])
    assert len(controller._sources) == 4


def test_a_look_that_ends_at_another_source_has_failed() -> None:
    """In a space that has been used up, looks are repeats."""
    controller = BeeColony(half_of(), seed=0, sources=2, limit=9)
    search(controller, lambda w: float(w[0]), 2)
    worse, better = sorted(controller._sources, key=lambda source: source.score)
    controller._looks[better.widths] = worse
    controller.tell([Trial(2, better.widths, TrialState.COMPLETE, better.score + 1.0)])
    assert worse.widths != better.widths
    assert worse.failures == 1


@pytest.mark.parametrize("settings", [{"sources": 1}, {"limit": 0}, {"changed": 0}])
def test_settings_of_the_colony_out_of_range_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=f"abc: {next(iter(settings))} must be at least"):
        BeeColony(half_of(), seed=0, **settings)


def region(distance: float = 0.1, *, domain: BudgetedSpace | None = None) -> TrustRegion:
    domain = domain or fine()
    return TrustRegion(domain, RandomSearch(domain, seed=0), seed=0, distance=distance)


def test_proposals_stay_near_the_best_trial() -> None:
    domain = fine()
    controller = region(0.1, domain=domain)
    assert controller.ask(5) == RandomSearch(domain, seed=0).ask(5)  # nothing is known yet
    best = domain.uniform()
    controller.tell([Trial(0, best, TrialState.COMPLETE, 1.0)])
    near = controller.ask(10)
    assert max(distance(widths, best) for widths in near) < 0.12
    assert domain.feasible(np.array(near)).all()
    assert len(set(near)) == 10


def test_the_region_grows_with_success_and_shrinks_with_failure() -> None:
    """TuRBO: three improvements in a row double it, as many failures as groups halve it; it starts anew when tiny."""
    controller = region(0.1)
    best = 0.0
    for number in range(7):  # the first score has nothing to improve
        (widths,) = controller.ask()
        best += 1.0
        controller.tell([Trial(number, widths, TrialState.COMPLETE, best)])
    assert controller.distance == pytest.approx(0.2)  # at most twice its first size
    sizes = []
    for number in range(7, 7 + 6 * 9):
        (widths,) = controller.ask()
        controller.tell([Trial(number, widths, TrialState.COMPLETE, -1.0)])
        sizes.append(controller.distance)
    assert sizes[5] == pytest.approx(0.1)
    assert min(sizes) == pytest.approx(0.2 / 2**7)
    assert 0.1 in sizes[6 * 7 :]


def test_what_others_proposed_moves_the_region_but_does_not_resize_it() -> None:
    domain = fine()
    controller = region(0.1, domain=domain)
    for number, row in enumerate(domain.sample(12, np.random.default_rng(0))):
        controller.tell([Trial(number, tuple(map(int, row)), TrialState.COMPLETE, float(number))])
    assert controller.distance == 0.1
    assert max(distance(widths, tuple(map(int, row))) for widths in controller.ask(5)) < 0.12


def test_the_controller_learns_what_was_handed_out_in_its_place() -> None:
    """A moved proposal is not pending for the controller any more, and its substitute's score reaches it."""
    told: list[Trial] = []

    class Recorder(Controller):
        def __init__(self, inner: Controller) -> None:
            self._inner = inner

        def ask(self, n: int = 1) -> list[Widths]:
            return self._inner.ask(n)

        def tell(self, trials: object) -> None:
            told.extend(trials)  # type: ignore[arg-type]
            self._inner.tell(trials)  # type: ignore[arg-type]

    domain = fine()
    controller = TrustRegion(domain, Recorder(Evolution(domain, seed=0)), seed=0, distance=0.05)
    controller.tell([Trial(0, domain.uniform(), TrialState.COMPLETE, 1.0)])
    asked = controller.ask(6)
    withdrawn = [trial for trial in told if trial.state is TrialState.FAILED]
    assert len(withdrawn) == 6
    assert not {trial.widths for trial in withdrawn} & set(asked)
    controller.tell([Trial(1 + i, w, TrialState.COMPLETE, 0.0) for i, w in enumerate(asked)])
    assert [trial.widths for trial in told[-6:]] == asked


def held(name: str, score: Callable[[Widths], float] = lambda _: 0.0) -> tuple[Any, list[Widths], list[Widths]]:
    """The controller in a narrow region, after a random start there: what it asked for, and what was handed out."""
    domain = fine()
    inner: Any = make_controller(name, domain, seed=0, settings={}, trials=40)
    asked: list[Widths] = []
    propose = inner.ask
    inner.ask = lambda n=1: asked.extend(widths := propose(n)) or widths  # type: ignore[func-returns-value]
    controller = TrustRegion(domain, inner, seed=0, distance=0.05)
    controller.tell([Trial(-1, domain.uniform(), TrialState.COMPLETE, 1.0)])
    found = search(controller, score, 20)
    return inner, asked, [widths for widths, _ in found]


def test_legr_learns_maps_by_what_was_handed_out_in_place_of_their_widths() -> None:
    inner, asked, found = held("legr", lambda w: float(w[0]))
    assert len(set(asked) & set(found)) < 3
    assert [score for _, score in inner._population][-10:] == [float(w[0]) for w in found][-10:]
    assert all(widths in inner._maps for widths in found)


def test_amc_trains_on_the_ratios_that_were_handed_out() -> None:
    inner, asked, found = held("amc")
    assert len(set(asked) & set(found)) < 3
    assert [tuple(np.rint(actions * 512)) for _, actions, _ in inner._episodes[-20:]] == found
    assert inner._agent._average is not None  # of the rewards it was trained on
    assert len(inner._history.seen) == 21  # proposals that were not evaluated do not let the noise fade


def test_a_look_that_was_moved_counts_as_a_failure_of_its_source() -> None:
    inner, asked, found = held("abc")
    assert len(set(asked) & set(found)) < 3
    assert sum(source.failures for source in inner._sources) > 3
    assert inner._looks == {}


@pytest.mark.parametrize("distance", [0, -1.0, float("inf"), True])
def test_a_distance_out_of_range_is_refused(distance: float) -> None:
    with pytest.raises(ConfigError, match="trust_region must be a distance"):
        make_controller("random", half_of(), seed=0, settings={"trust_region": distance})


def test_a_search_in_a_region_beats_one_without() -> None:
    """Random search that stays near the best is a local search."""
    losses = {}
    for settings in ({}, {"trust_region": 0.3}):
        runs = []
        for seed in range(4):
            controller = make_controller("random", half_of(), seed=seed, settings=settings)
            runs.append(min(-s for _, s in search(controller, lambda w, seed=seed: -loss(w, seed), 80)))
        losses[bool(settings)] = np.mean(runs)
    assert losses[True] < 0.8 * losses[False]
    assert len(FULL) == 8
