"""NetAdapt and AutoSlim: walks from the full network into the budget."""

from __future__ import annotations

import numpy as np
import pytest
from smooth import FULL, half_of, loss, search

from autoprune.controllers import make_controller
from autoprune.controllers.autoslim import AutoSlim
from autoprune.controllers.base import Controller, Trial, TrialState
from autoprune.controllers.netadapt import NetAdapt
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import ConfigError
from autoprune.space.groups import Widths
from autoprune.testing.spaces import chain_space

WALKERS: list[type[Controller]] = [NetAdapt, AutoSlim]


def greedy_path(domain: BudgetedSpace, seed: int, removed: float) -> list[Widths]:
    """NetAdapt's Algorithm 1 by plain enumeration: the networks it keeps, step by step."""

    def used(widths: Widths) -> float:
        return float(domain.budget.usage(np.array([widths]))[0])

    kept = [domain.space.full]
    while used(kept[-1]) > 1.0:
        at, options = kept[-1], []
        target = max(1.0, used(at) - removed)
        for index, group in enumerate(domain.space.groups):
            for width in reversed([w for w in group.choices if w < at[index]]):
                option = (*at[:index], width, *at[index + 1 :])
                if used(option) <= target:
                    options.append(option)
                    break
        kept.append(min(options, key=lambda widths: loss(widths, seed)))
    return kept[1:]


def test_netadapt_keeps_the_networks_of_algorithm_1() -> None:
    domain = half_of()
    full = float(domain.budget.usage(np.array([FULL]))[0])
    expected = greedy_path(domain, 3, 0.05 * full)
    controller = NetAdapt(domain, seed=0, reduction=0.05, decay=1.0)
    found = [widths for widths, _ in search(controller, lambda widths: -loss(widths, 3), 90)]
    assert len(expected) > 6
    assert set(expected[:-1]) <= set(found)  # the last one is filled up


@pytest.mark.parametrize("trials", [None, 120])
def test_netadapt_keeps_no_option_that_saves_less_than_its_step(trials: int | None) -> None:
    """Where a score falls with every channel, a group of four is the cheapest cut, and next to nothing is saved."""
    domain = BudgetedSpace(chain_space((4, 4, 64, 64, 64), levels=None), {"flops": "40%"})
    full = domain.space.full
    controller = NetAdapt(domain, seed=0, trials=trials, reduction=0.05, decay=1.0)
    walk, used = controller._walk, [float(domain.budget.usage(np.array([full]))[0])]
    while used[-1] > 1.0:
        ends = walk._now
        search(controller, lambda widths: float(sum(widths)), 1)
        walk._advance()
        if walk._now != ends:
            used.append(float(domain.budget.usage(np.array([walk._now.at]))[0]))
    saved = -np.diff(used)[:-1]
    assert len(saved) > 6
    assert saved.min() >= 0.05 * used[0] - 1e-9


def test_a_step_that_no_group_can_save_is_half_of_what_one_can() -> None:
    full = (4, 64, 64, 64, 64, 64, 64)
    domain = BudgetedSpace(chain_space(full, levels=None), {"flops": "40%"})
    alone = [(*full[:i], 1, *full[i + 1 :]) for i in range(len(full))]
    whole, *lowest = domain.budget.usage(np.array([full, *alone]))
    assert min(lowest) > 1.0
    options = NetAdapt(domain, seed=0, reduction=1.0)._cuts(full, 0, None)
    saved = whole - domain.budget.usage(options)
    assert saved[0] == 0.0
    assert saved[2:-1] == pytest.approx(np.full(4, (whole - min(lowest)) / 2), rel=0.05)


def test_netadapts_steps_fade_as_in_the_paper() -> None:
    """From 2.5 % by a factor of 0.96, half of the resource is gone after 40 steps."""
    domain = BudgetedSpace(chain_space((512,) * 4), {"flops": "50%"})
    walk = search(NetAdapt(domain, seed=0), lambda w: float(sum(w)), 120)
    used = domain.budget.usage(np.array([w for w, _ in walk])) / domain.budget.usage(np.array([(512,) * 4]))
    first = used[:4]
    assert first.max() <= 0.975 + 1e-9
    assert first.min() > 0.97
    best = [used[4 * step : 4 * step + 4].max() for step in range(20)]
    steps = -np.diff([1.0, *best])
    assert steps[10] / steps[0] == pytest.approx(0.96**10, rel=0.15)


@pytest.mark.parametrize("walker", WALKERS)
def test_each_option_cuts_one_group_of_the_last_winner(walker: type[Controller]) -> None:
    domain = half_of()
    found = [widths for widths, _ in search(walker(domain, seed=0), lambda w: -loss(w, 0), 60)]
    at, options = domain.space.full, found[: len(FULL)]
    for _ in range(3):
        assert all(sum(a != b for a, b in zip(widths, at, strict=True)) == 1 for widths in options)
        assert all(a <= b for widths in options for a, b in zip(widths, at, strict=True))
        at = min(options, key=lambda widths: loss(widths, 0))
        start = found.index(options[-1]) + 1
        options = found[start : start + len(FULL)]


def test_autoslim_cuts_a_tenth_of_a_group() -> None:
    domain = BudgetedSpace(chain_space((100, 100, 100)), {"flops": "50%"})
    first = AutoSlim(domain, seed=0).ask(3)
    assert sorted(first) == [(90, 100, 100), (100, 90, 100), (100, 100, 90)]


@pytest.mark.parametrize("walker", WALKERS)
def test_the_order_of_groups_is_the_seeds_but_not_the_outcome(walker: type[Controller]) -> None:
    first = [walker(half_of(), seed=seed).ask(len(FULL)) for seed in range(3)]
    assert first[0] != first[1]
    assert set(first[0]) == set(first[1]) == set(first[2])


@pytest.mark.parametrize("walker", WALKERS)
@pytest.mark.parametrize("trials", [20, 60, 200])
def test_a_walk_that_knows_the_length_of_the_search_ends_inside_the_budget_in_time(
    walker: type[Controller], trials: int
) -> None:
    domain = half_of()
    found = search(walker(domain, seed=1, trials=trials), lambda w: -loss(w, 1), trials)  # type: ignore[call-arg]
    inside = domain.feasible(np.array([widths for widths, _ in found]))
    assert inside.any()
    assert inside[-max(1, trials // 10) :].all()


@pytest.mark.parametrize("walker", WALKERS)
def test_what_comes_next_is_proposed_while_scores_are_pending(walker: type[Controller]) -> None:
    """Eight workers get eight different networks, those of the next step where this one's are used up."""
    domain = half_of()
    controller = walker(domain, seed=0)
    asked = controller.ask(3 * len(FULL))
    assert len(set(asked)) == len(asked)
    cuts = [sum(a != b for a, b in zip(widths, FULL, strict=True)) for widths in asked]
    assert cuts[: len(FULL)] == [1] * len(FULL)
    assert max(cuts) <= 3
    controller.tell([Trial(i, w, TrialState.COMPLETE, -loss(w, 0)) for i, w in enumerate(asked)])
    assert len(set(controller.ask(5)) | set(asked)) == len(asked) + 5


@pytest.mark.parametrize("walker", WALKERS)
def test_a_step_whose_options_all_fail_does_not_end_the_walk(walker: type[Controller]) -> None:
    domain = half_of()
    controller = walker(domain, seed=0)
    asked: list[Widths] = []
    while not asked or not domain.feasible(np.array([asked[-1]]))[0]:
        asked += controller.ask(1)
        controller.tell([Trial(len(asked), asked[-1], TrialState.FAILED, None)])
        assert len(asked) < 2_000
    assert len(set(asked)) == len(asked)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("netadapt", {"reduction": 0.0}, "reduction must be above 0"),
        ("netadapt", {"decay": 1.5}, "decay must be above 0"),
        ("autoslim", {"parts": 1}, "parts must be at least 2"),
        ("netadapt", {"trust_region": 0.5}, "cannot be held near"),
    ],
)
def test_settings_out_of_range_are_refused(name: str, settings: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_controller(name, half_of(), seed=0, settings=settings)
