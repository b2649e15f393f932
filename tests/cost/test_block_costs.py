"""Blocks that are off cost nothing: the closed form against networks really built, and budgets with blocks."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from autoprune.allocation.global_threshold import global_threshold
from autoprune.config.space import SpaceOptions
from autoprune.controllers.parts.proposals import mutate
from autoprune.cost.budget.budget import BAND
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.cost.flops import flops
from autoprune.cost.params import params
from autoprune.cost.shares import group_shares, prunable
from autoprune.space.cutting.slicing import random_ranking, slice_model
from autoprune.space.groups import Block, BoolArray, SearchSpace, WidthGroup, Widths
from autoprune.space.options.choices import freeze_groups
from autoprune.space.sizes import AffineSize, Operation
from autoprune.space.tracing.trace import trace
from autoprune.space.verification.flop_check import counted_by_fvcore
from autoprune.zoo import build_model

IMAGE = torch.zeros(1, 3, 16, 16)


@cache
def network(name: str) -> nn.Module:
    return build_model(name, {})


@cache
def space_of(name: str) -> SearchSpace:
    return trace(network(name), IMAGE, options=SpaceOptions(blocks=True)).space


def on_off(domain: BudgetedSpace) -> BoolArray:
    return ~domain.space.kinds.scales


def at_random(space: SearchSpace, rng: np.random.Generator) -> Widths:
    return tuple(int(rng.choice(group.choices)) for group in space.groups)


@pytest.mark.parametrize("name", ["resnet20", "resnet56", "mobilenetv2"])
def test_cost_is_that_of_the_network_that_is_built(name: str) -> None:
    space, rng = space_of(name), np.random.default_rng(0)
    assert len(space.presence.blocks) == {"resnet20": 7, "resnet56": 25, "mobilenetv2": 10}[name]
    every = (space.smallest, *(at_random(space, rng) for _ in range(4)))
    for widths in every:
        built = slice_model(network(name), space, widths, random_ranking(space, rng)).eval()
        row = np.array([widths])
        assert params(space)(row)[0] == sum(p.numel() for p in built.parameters())
        assert flops(space)(row)[0] == counted_by_fvcore(built, IMAGE)


def test_the_widths_inside_a_block_that_is_off_cost_nothing() -> None:
    space = space_of("resnet20")
    switch = next(iter(space.presence.blocks))
    inner = next(i for i, g in enumerate(space.groups) if g.name == f"{space.presence.blocks[switch].name}.conv1")
    off = np.array([space.full, space.full])
    off[:, switch] = 0
    off[1, inner] = 1
    for cost in (flops(space), params(space)):
        assert cost(off)[0] == cost(off)[1] < cost(np.array([space.full]))[0]


def test_a_block_that_is_frozen_costs_what_it_did() -> None:
    space = space_of("resnet20")
    less = freeze_groups(space, dict.fromkeys(list(space.presence.blocks)[:3], "for a test"))
    assert list(less.presence.blocks.values()) == list(space.presence.blocks.values())[3:]
    for metric in (flops, params):
        every = np.array([space.smallest])
        every[:, list(space.presence.blocks)[:3]] = 1
        assert metric(less)(np.array([less.smallest]))[0] == metric(space)(every)[0]


def test_shares_count_what_goes_with_a_block() -> None:
    space = space_of("resnet20")
    index, block = next(iter(space.presence.blocks.items()))
    full, off = np.array([space.full]), np.array([space.full])
    off[0, index] = 0
    share = group_shares(space)[index]
    for metric, cost in (("flops", flops(space)), ("params", params(space))):
        assert share[metric] == pytest.approx(1 - cost(off)[0] / cost(full)[0])
    frozen = freeze_groups(space, {i: "whole" for i, g in enumerate(space.groups) if g.kind != "blocks"})
    assert prunable(frozen)["flops"] == pytest.approx(sum(s["flops"] for s in group_shares(frozen)))
    assert 0 < prunable(frozen)["flops"] < 1
    assert block.tensors


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from([None, 8]),
    st.sampled_from([0.15, 0.3, 0.5, 0.8]),
    st.integers(0, 2**31),
)
def test_repair_keeps_the_choice_of_blocks_where_the_budget_allows_it(
    divisor: int | None, share: float, seed: int
) -> None:
    space = space_of("resnet20")
    if divisor:
        groups = [
            replace(g, choices=tuple(c for c in g.choices if c == g.width or not c % divisor)) for g in space.groups
        ]
        groups = [new if new.kind != "blocks" else old for new, old in zip(groups, space.groups, strict=True)]
        space = replace(space, groups=tuple(groups))
    domain = BudgetedSpace(space, {"flops": f"{100 * share:g}%"})
    rng = np.random.default_rng(seed)
    given_widths = np.array([at_random(space, rng) for _ in range(8)], dtype=np.float64)
    members = domain.repair(given_widths)
    assert all(tuple(row) in space for row in members.tolist())
    assert domain.feasible(members).all()
    assert (domain.repair(members) == members)[domain.budget.usage(members) >= BAND].all()
    low, high = (np.where(on_off(domain), given_widths, bound) for bound in (space.smallest, space.full))
    can = (domain.budget.usage(low) <= 1) & (domain.budget.usage(high) >= BAND)
    in_band = domain.budget.usage(members) >= BAND
    if not divisor:
        assert in_band.all()
        assert (members == given_widths)[can][:, on_off(domain)].all()


def test_random_members_lack_some_blocks_but_at_most_about_half() -> None:
    domain = BudgetedSpace(space_of("resnet56"), {"flops": "50%"})
    on = domain.sample(200, np.random.default_rng(0))[:, on_off(domain)].mean(axis=1)
    assert 0.7 < on.mean() < 0.8
    assert on.max() == 1.0
    assert on.min() < 0.6


def test_uniform_keeps_blocks_until_the_budget_cannot_be_reached_with_them() -> None:
    space = space_of("resnet20")
    for inner_only in (False, True):
        kept = BudgetedSpace(space, {"flops": "40%"}).uniform(inner_only=inner_only)
        assert all(kept[index] == 1 for index in space.presence.blocks)
    tight = BudgetedSpace(space, {"flops": "8%"})
    inner = tight.uniform(inner_only=True)
    assert 0 < len(space.left_out(inner)) < len(space.presence.blocks)
    assert all(w == g.width for w, g in zip(inner, space.groups, strict=True) if g.residual)


def test_uniform_keeps_blocks_also_where_the_band_could_be_reached_without() -> None:
    groups = (WidthGroup("layer", 16, (8, 16)), WidthGroup("block:b", 1, (0, 1), kind="blocks"))
    operations = (
        Operation("layer", "linear", 1, (AffineSize(0, ((0, 1),)),)),
        Operation("b", "linear", 6, (AffineSize(0, ((1, 1),)),)),
    )
    domain = BudgetedSpace(
        SearchSpace(groups, operations=operations, blocks=(Block("b", "x", "y", (1,)),)), {"flops": 16}
    )
    assert domain.uniform() == (8, 1)  # 14 of 16; without the block it would be 16
    assert domain.repair(np.array([[8, 1]])).tolist() == [[16, 0]]  # a search may use what is left


def test_coarse_widths_rarely_change_the_choice_of_blocks() -> None:
    space = space_of("resnet20")
    coarse = [tuple(c for c in group.choices if c == group.width or c % 8 == 0) for group in space.groups]
    groups = tuple(
        group if group.kind == "blocks" else replace(group, choices=choices)
        for group, choices in zip(space.groups, coarse, strict=True)
    )
    space, rng, kept = replace(space, groups=groups), np.random.default_rng(0), list[bool]()
    for percent in range(20, 100, 8):
        domain = BudgetedSpace(space, {"flops": f"{percent}%"})
        wanted = np.array([at_random(space, rng) for _ in range(50)])
        low, high = (np.where(on_off(domain), wanted, bound) for bound in (space.smallest, space.full))
        can = (domain.budget.usage(low) <= 1) & (domain.budget.usage(high) >= BAND)
        kept += (domain.repair(wanted) == wanted)[can][:, on_off(domain)].all(axis=1).tolist()
    assert len(kept) > 100
    assert np.mean(kept) > 0.965


def test_a_global_threshold_keeps_blocks() -> None:
    space = space_of("resnet20")
    domain = BudgetedSpace(space, {"flops": "50%"})
    scores = [np.random.default_rng(i).random(g.width) for i, g in enumerate(space.groups)]
    scores = [np.ones(1) if g.kind == "blocks" else s for g, s in zip(space.groups, scores, strict=True)]
    assert not space.left_out(global_threshold(domain, scores))


def test_mutations_switch_blocks_both_ways() -> None:
    space = space_of("resnet20")
    domain = BudgetedSpace(space, {"flops": "50%"})
    for start in (0, 1):
        parents = np.array([space.full] * 50)
        parents[:, on_off(domain)] = start
        mutated = mutate(domain, parents, 0.3, np.random.default_rng(0))
        assert set(np.unique(mutated[:, on_off(domain)])) == {0.0, 1.0}
        assert 0.1 < (mutated[:, on_off(domain)] != start).mean() < 0.5
