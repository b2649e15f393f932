from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import autoprune
from autoprune.cost import METRICS
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.cost.latency.device_profile import Conditions
from autoprune.errors import ConfigError
from autoprune.latency import choice as finals
from autoprune.latency.choice import LatencyChoice, choose_by_latency, flops_of_equal_latency
from autoprune.latency.measure import Latency
from autoprune.latency.profile import build_profile
from autoprune.space.groups import Widths
from autoprune.zoo import build_model

X = torch.randn(1, 3, 32, 32)

Domain = tuple[BudgetedSpace, Callable[[Widths], nn.Module]]


@pytest.fixture
def domain(known_times: None) -> Domain:
    if "latency_ms" not in METRICS.names():
        pytest.skip("latency_ms is not in the table of metrics")
    model = build_model("resnet20")
    space = autoprune.trace(model, X, verify=False)

    def build(widths: Widths) -> nn.Module:
        return space.slice(model, widths)

    profile = build_profile(space.search_space, build, X, networks=0)
    settings = {"latency_ms": {"profile": profile}}
    return BudgetedSpace(space.search_space, {"latency_ms": "60%", "flops": "90%"}, metrics=settings), build


def rows(domain: BudgetedSpace, n: int) -> list[Widths]:
    return [tuple(int(w) for w in row) for row in domain.sample(n, np.random.default_rng(0))]


def choose(domain: Domain, ranked: Sequence[Widths], factor: Callable[[Widths], float]) -> LatencyChoice:
    """With networks that are measured this many times as slow as predicted."""
    space, _ = domain
    widths_of: dict[int, Widths] = {}

    def build(widths: Widths) -> nn.Module:
        network = nn.Identity()
        widths_of[id(network)] = widths
        return network

    def measured(networks: Sequence[nn.Module], *_: Any, **__: Any) -> list[Latency]:
        found = [widths_of[id(network)] for network in networks]
        ms = [float(space.budget.metrics["latency_ms"](np.array([w]))[0]) * factor(w) for w in found]
        return [Latency(m, m, (m, m), 100, Conditions(), "here", {}) for m in ms]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finals, "measure_many", measured)
        choice = choose_by_latency(space, ranked, build, X)
    assert choice is not None
    return choice


def test_the_best_candidate_wins_where_it_keeps_the_limit(domain: Domain) -> None:
    ranked = rows(domain[0], 3)
    choice = choose(domain, ranked, lambda widths: 0.99)
    assert choice.kept
    assert choice.winner.widths == ranked[0]
    assert [final.widths for final in choice.measured] == ranked
    assert choice.winner.latency.ms == pytest.approx(0.99 * choice.winner.predicted)


def test_the_next_one_wins_where_the_best_is_measured_above(domain: Domain) -> None:
    ranked = rows(domain[0], 3)
    choice = choose(domain, ranked, lambda widths: 1.2 if widths == ranked[0] else 0.98)
    assert choice.kept
    assert choice.winner.widths == ranked[1]
    assert choice.winner.scored


def test_the_limit_is_tightened_where_all_are_measured_above(domain: Domain) -> None:
    space, ranked = domain[0], rows(domain[0], 3)
    choice = choose(domain, ranked, lambda widths: 1.2)
    assert choice.kept
    assert not choice.winner.scored
    assert choice.winner.widths in space.space
    assert 0.9 * choice.limit < choice.winner.latency.ms <= choice.limit
    assert bool(space.feasible(np.array([choice.winner.widths]))[0])  # the limit on FLOPs holds, too


@pytest.mark.parametrize(("slower", "measured"), [(1.5, 4), (1000.0, 3)])  # below any network at last
def test_a_machine_that_was_busy_for_a_while_makes_no_network_smaller(
    domain: Domain, slower: float, measured: int
) -> None:
    ranked, turns = rows(domain[0], 3), dict[Widths, int]()

    def busy_at_first(widths: Widths) -> float:
        turns[ranked[0]] = turns.get(ranked[0], 0) + (widths == ranked[0])
        return slower if turns[ranked[0]] < 2 else 0.99

    choice = choose(domain, ranked, busy_at_first)
    assert choice.kept
    assert choice.winner.widths == ranked[0]
    assert len(choice.measured) == measured
    assert choice.winner.latency.ms == pytest.approx(0.99 * choice.winner.predicted)


def test_a_network_that_was_made_too_small_gives_way_to_a_larger_one(domain: Domain) -> None:
    ranked, turns = rows(domain[0], 3), dict[Widths, int]()

    def busy_at_first(widths: Widths) -> float:
        turns[ranked[0]] = turns.get(ranked[0], 0) + (widths == ranked[0])
        return 1.8 if turns[ranked[0]] < 2 else 1.2

    choice = choose(domain, ranked, busy_at_first)
    small = [final for final in choice.measured if final.latency.quiet < 0.9 * choice.limit]
    assert small
    assert not choice.winner.scored
    assert 0.95 * choice.limit < choice.winner.latency.quiet <= choice.limit


def test_the_fastest_one_is_given_where_nothing_keeps_the_limit(domain: Domain) -> None:
    ranked = rows(domain[0], 3)
    choice = choose(domain, ranked, lambda widths: 100.0)
    assert not choice.kept
    assert choice.winner.latency.ms == min(final.latency.ms for final in choice.measured)


def test_a_choice_is_plain_values(domain: Domain) -> None:
    choice = choose(domain, rows(domain[0], 2), lambda widths: 0.9)
    plain = json.loads(json.dumps(choice.to_json()))
    assert LatencyChoice.from_json(plain) == choice
    assert plain["kept"] is True
    assert plain["winner"]["latency"]["ms"] > 0
    assert plain["measured"][1]["scored"] is True


def test_without_a_latency_limit_nothing_is_measured(domain: Domain) -> None:
    space, build = domain
    plain = BudgetedSpace(space.space, {"flops": "50%"})
    assert choose_by_latency(plain, rows(plain, 1), build, X) is None
    profile = replace(space.budget.settings["latency_ms"]["profile"], machine="Abacus")
    settings = {"latency_ms": {"profile": profile, "elsewhere": True}}
    elsewhere = BudgetedSpace(space.space, {"latency_ms": "60%"}, metrics=settings)
    assert choose_by_latency(elsewhere, rows(elsewhere, 1), build, X) is None
    with pytest.raises(ConfigError, match=r"profile is of Abacus.*elsewhere: true"):
        finals.profile_conditions(profile)


def test_measured_networks_run_for_real(domain: Domain) -> None:
    space, build = domain
    choice = choose_by_latency(space, rows(space, 2), build, X, repeats=50)
    assert choice is not None
    assert len(choice.measured) >= 2


def test_flops_of_the_uniform_network_at_the_limit(domain: Domain) -> None:
    space, _ = domain
    flops = flops_of_equal_latency(space)
    uniform = np.array([space.uniform()])
    assert flops == space.budget.metrics["flops"](uniform)[0]
    assert space.budget.usage(uniform)[0] >= 0.9
