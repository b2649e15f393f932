"""A space whose groups are tied or taken out costs by every metric what the old one does at the same widths."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_networks import NETWORKS, profile_of, space_of

from autoprune.config.space import SpaceOptions
from autoprune.controllers import make_controller
from autoprune.cost import METRICS
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.cost.latency.latency_ms import LatencyPrediction
from autoprune.cost.polynomial import CostFunction
from autoprune.cost.pricing import make_metric
from autoprune.errors import BudgetError
from autoprune.space.groups import SearchSpace, Widths
from autoprune.space.options.choices import freeze_groups
from autoprune.space.options.ties import partition, tie, tied_sets

SPACE_FILES = Path(__file__).parents[3] / "search_spaces"
BLOCKS = SpaceOptions(blocks=True)
ALL = (*NETWORKS, "densenet40")
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "flops": [{}],
    "params": [{}],
    "size_mb": [{}, {"dtype": "float16"}],
    "peak_memory_mb": [{}, {"batch": 8, "threads": 2}, {"device": "any", "dtype": "float16"}],
    "latency_ms": [{"profile": "of the network"}],
}


@cache
def untied(name: str) -> SearchSpace:
    return space_of(name, BLOCKS)


def metrics_of(space: SearchSpace, name: str) -> dict[str, CostFunction]:
    """Every metric, with each of its settings."""
    found = {}
    for metric in METRICS.names():
        for number, given in enumerate(SETTINGS[metric]):
            chosen = {"profile": profile_of(name)} if "profile" in given else given
            found[f"{metric} {number}"] = make_metric(metric, space, chosen)
    return found


def expanded(space: SearchSpace, parts: Sequence[Sequence[int]], tied: SearchSpace, widths: Widths) -> Widths:
    full = [0] * len(space.groups)
    for indices, group, width in zip(parts, tied.groups, widths, strict=True):
        for index in indices:
            full[index] = space.groups[index].width * width // group.width
    return tuple(full)


def rows_of(space: SearchSpace, n: int) -> list[Widths]:
    """The full and the smallest network, and random ones of any width; a block is there or not."""
    rng = np.random.default_rng(0)
    drawn = [tuple(int(rng.integers(g.choices[0], g.width + 1)) for g in space.groups) for _ in range(n)]
    return [space.full, space.smallest, *drawn]


def assert_same_costs(name: str, tied: SearchSpace, space: SearchSpace, pairs: Sequence[tuple[Widths, Widths]]) -> None:
    ours, theirs = (np.array(rows) for rows in zip(*pairs, strict=True))
    before, after = metrics_of(space, name), metrics_of(tied, name)
    for metric in before:
        np.testing.assert_allclose(after[metric](ours), before[metric](theirs), rtol=1e-9, err_msg=metric)


def random_sets(space: SearchSpace, seed: int) -> list[tuple[int, ...]]:
    """Disjoint sets of groups with a common divisor, also of different widths."""
    rng = np.random.default_rng(seed)
    sets: list[list[int]] = [[], [], []]
    for index in rng.permutation([i for i, group in enumerate(space.groups) if group.kind != "blocks"]):
        one = sets[int(rng.integers(len(sets)))]
        if math.gcd(*(space.groups[i].width for i in (*one, index))) > 1:
            one.append(int(index))
    return [tuple(one) for one in sets if one]


def test_every_metric_is_tried() -> None:
    assert list(SETTINGS) == METRICS.names()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("seed", range(2))
def test_tied_groups_cost_what_they_cost_apart(name: str, seed: int) -> None:
    space = untied(name)
    sets = random_sets(space, seed)
    tied, parts = tie(space, sets), partition(len(space.groups), sets)
    assert len(tied.groups) < len(space.groups)
    pairs = [(widths, expanded(space, parts, tied, widths)) for widths in rows_of(tied, 20)]
    assert_same_costs(name, tied, space, pairs)


@pytest.mark.parametrize("name", ALL)
def test_ties_of_ties_and_frozen_groups_cost_what_they_did(name: str) -> None:
    """Every third group, and block, is always kept; then stages are tied, and then all groups."""
    space = untied(name)
    less = freeze_groups(space, dict.fromkeys(range(0, len(space.groups), 3), "not today"))
    left = [index for index in range(len(space.groups)) if index % 3]
    stages, model = (SpaceOptions(per=per) for per in ("stage", "model"))
    once = tie(less, first := tied_sets(less, stages))
    twice = tie(once, second := tied_sets(once, model))
    pairs = []
    for widths in rows_of(twice, 20):
        middle = expanded(once, partition(len(once.groups), second), twice, widths)
        meant = dict(zip(left, expanded(less, partition(len(less.groups), first), once, middle), strict=True))
        pairs.append((widths, tuple(meant.get(i, full) for i, full in enumerate(space.full))))
    assert_same_costs(name, twice, space, pairs)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("per", ["stage", "block"])
def test_space_files_with_ties_cost_what_the_untied_space_does(name: str, per: str) -> None:
    space, tied = space_of(name), space_of(name, SPACE_FILES / f"per_{per}.yaml")
    parts = partition(len(space.groups), tied_sets(space, SpaceOptions(per=per)))  # type: ignore[arg-type]
    pairs = [(widths, expanded(space, parts, tied, widths)) for widths in rows_of(tied, 20)]
    assert_same_costs(name, tied, space, pairs)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("file", ["per_stage", "per_block", "inner_only"])
def test_a_profile_of_the_whole_network_serves_its_narrower_spaces(name: str, file: str) -> None:
    space = space_of(name, SPACE_FILES / f"{file}.yaml")
    settings = {"latency_ms": {"profile": profile_of(name)}}
    domain = BudgetedSpace(space, {"latency_ms": "95%", "peak_memory_mb": "98%"}, metrics=settings)
    controller = make_controller("random", domain, seed=0, settings={"per": "stage"})
    assert domain.feasible(np.array(controller.ask(3))).all()


def test_a_kernel_that_no_table_covers_is_still_missing() -> None:
    """Neither tables that end too early nor those of another operator, shape or setting are used."""
    tied = space_of("resnet20", SPACE_FILES / "per_stage.yaml")
    whole = profile_of("resnet20")
    convolutions = {name for name in whole.tables if name.startswith("conv2d")}
    for tables in (
        {name: table for name, table in whole.tables.items() if name not in convolutions},
        {name.replace("padding", "filling"): table for name, table in whole.tables.items()},
        {name.replace(",3,3]", ",5,5]"): table for name, table in whole.tables.items()},
        {
            name: table
            and replace(table, grids=tuple(replace(g, axes=tuple(a / 8 for a in g.axes)) for g in table.grids))
            for name, table in whole.tables.items()
        },
    ):
        with pytest.raises(BudgetError, match=r"lacks \d+ kernels of this network.*conv2d"):
            LatencyPrediction(tied, replace(whole, tables=tables))
