"""The contract of rules over every card, with default settings and with others."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_networks import profile_of, space_of

from autoprune.allocation import ALLOCATIONS
from autoprune.cost.budget.budget import Budget
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.cost.latency.profile_files import write_profile
from autoprune.errors import BudgetError, ConfigError
from autoprune.testing.allocations import AllocationContract, Rule, call, random_scores
from autoprune.testing.spaces import chain_space

BY_SCORES = {"global_threshold": 1.0, "stagewise": 0.1, "isomorphic": 0.1, "slimming_quantile": 0.1, "apoz_sigma": 0.1}
OTHERS: list[tuple[str, dict[str, Any]]] = [
    ("global_threshold", {"normalise": "mean", "per_cost": "flops"}),
    ("global_threshold", {"per_cost": "budget"}),
    ("stagewise", {"normalise": "max"}),
    ("random", {"seed": 7}),
    ("isomorphic", {"normalise": "l2"}),
    ("cluster_count", {"linkage": "single"}),
    ("dcp_adapt", {"points": 3}),
    ("erk", {"power": 0.5}),
    ("smart_ratio", {"form": "vgg"}),
    ("sensitivity_tolerance", {"points": 2}),
    ("knapsack", {"table": "importance", "points": 12}),
    ("slimming_quantile", {"quantile": 0.3}),
]


def bound(name: str, settings: dict[str, Any], folder: Path) -> Rule:
    rule = ALLOCATIONS.get(name)
    if name != "published":
        return partial(rule, **settings) if settings else rule

    def from_file(domain: BudgetedSpace, scores: Any) -> Any:
        path = folder / "widths.json"
        path.write_text(json.dumps({group.name: max(1, group.width // 2) for group in domain.space.groups}))
        return rule(domain, scores, file=str(path))

    return from_file


@pytest.mark.parametrize("name", ALLOCATIONS.names(), scope="class")
class TestEveryCard(AllocationContract):
    @pytest.fixture
    def rule(self, name: str, tmp_path: Path) -> Rule:
        self.even = BY_SCORES.get(name)
        return bound(name, {}, tmp_path)


@pytest.mark.parametrize(("name", "settings"), OTHERS, ids=str)
class TestOtherSettings(AllocationContract):
    @pytest.fixture
    def rule(self, name: str, settings: dict[str, Any], tmp_path: Path) -> Rule:
        return bound(name, settings, tmp_path)


REAL = ("resnet20", "mobilenetv2", "transformer")
TURNS = [
    pytest.param(network, name, marks=() if network == REAL[number % len(REAL)] else pytest.mark.slow)
    for number, name in enumerate(ALLOCATIONS.names())
    for network in REAL
]
"""Rules take turns with the networks; the others are slow."""


@pytest.mark.parametrize(("network", "name"), TURNS)
def test_real_networks_meet_limits_of_latency_memory_and_several_at_once(
    network: str, name: str, tmp_path: Path
) -> None:
    space = space_of(network)
    profile = tmp_path / "profile.json"
    write_profile(profile_of(network), profile)
    settings = {"latency_ms": {"profile": str(profile)}}
    metrics = Budget(space, {"flops": "100%"}, settings).metrics

    def reachable(metric: str, share: float) -> float:
        smallest, full = metrics[metric](np.array([space.smallest, space.full]))
        return float(smallest + share * (full - smallest))

    latency, memory = reachable("latency_ms", 0.5), reachable("peak_memory_mb", 0.7)
    for limits in (
        {"latency_ms": latency},
        {"peak_memory_mb": memory},
        {"latency_ms": latency, "flops": "50%", "params": "60%"},
    ):
        domain = BudgetedSpace(space, limits, metrics=settings)
        try:
            widths = call(bound(name, {}, tmp_path), domain, random_scores(space))
        except BudgetError:
            assert name == "uniform_inner"
            continue
        assert widths in space
        assert domain.feasible(np.array([widths]))[0]


def test_a_misspelt_setting_of_any_kind_is_answered_with_what_there_is() -> None:
    domain = BudgetedSpace(chain_space((8, 12)), {"flops": "50%"})
    scores = random_scores(domain.space)
    wrong: list[tuple[str, dict[str, Any], str]] = [
        ("global_threshold", {"per_cost": "flop"}, "Did you mean 'flops'"),
        ("stagewise", {"ratios": [0.5, 0.5]}, "ratios must be 1 numbers above 0"),
        ("stagewise", {"ratios": [-1]}, "ratios must be 1 numbers above 0"),
        ("random", {"seed": -1}, "seed must be a whole number"),
        ("slimming_quantile", {"quantile": 1.0}, "quantile must be at least 0 and below 1"),
        ("cluster_count", {"linkage": "averge"}, "Did you mean 'average'"),
        ("erk", {"power": -1}, "power must be a number of at least 0"),
        ("smart_ratio", {"form": "cubik"}, "Did you mean 'cubic'"),
        ("knapsack", {"table": "mesured"}, "Did you mean 'measured'"),
        ("knapsack", {"points": 0}, "points must be a whole number of at least 1"),
        ("dcp_adapt", {"points": True}, "points must be a whole number of at least 1"),
        ("sensitivity_tolerance", {"points": 1.5}, "points must be a whole number of at least 1"),
    ]
    for name, settings, message in wrong:
        with pytest.raises(ConfigError, match=message):
            call(partial(ALLOCATIONS.get(name), **settings), domain, scores)
