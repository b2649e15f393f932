from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import autoprune
from autoprune.cost.budget.budget import BAND
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import BudgetError
from autoprune.space.groups import FloatArray, SearchSpace, WidthGroup
from autoprune.testing.spaces import chain_space
from autoprune.zoo import build_model

MIXES = [("flops",), ("params",), ("flops", "params")]


def limited(space: SearchSpace, shares: dict[str, float]) -> BudgetedSpace:
    """Limits at these shares of the way from the smallest to the full cost, on a log scale."""
    free = BudgetedSpace(space, {"flops": "100%"})
    costs = {m: (c[0], c[1]) for m, c in free.costs(np.array([space.smallest, space.full])).items()}
    return BudgetedSpace(space, {m: float(costs[m][0] * (costs[m][1] / costs[m][0]) ** s) for m, s in shares.items()})


def proposals(space: SearchSpace, n: int, seed: int) -> FloatArray:
    """Anything positive: far below, far above and in between."""
    rng = np.random.default_rng(seed)
    scale = 10 ** rng.uniform(-3, 3, size=(n, 1))
    drawn: FloatArray = scale * np.exp(rng.normal(size=(n, len(space.groups)))) * np.array(space.full)
    return drawn


def assert_members_inside(domain: BudgetedSpace, rows: np.ndarray) -> None:
    assert rows.dtype == np.int64
    assert all(tuple(map(int, row)) in domain.space for row in rows)
    assert domain.feasible(rows).all()


@pytest.fixture(scope="module", params=["resnet20", "mobilenetv2", "densenet40", "vgg16"])
def zoo_space(request: pytest.FixtureRequest) -> SearchSpace:
    with torch.random.fork_rng(devices=[]):
        return autoprune.trace(build_model(request.param), torch.randn(1, 3, 16, 16), verify=False).search_space


@settings(max_examples=15, deadline=None)
@given(share=st.floats(0.02, 1.0), other=st.floats(0.02, 1.0), mix=st.sampled_from(MIXES), seed=st.integers(0, 999))
def test_any_proposal_on_a_zoo_network_lands_in_the_band(
    zoo_space: SearchSpace, share: float, other: float, mix: tuple[str, ...], seed: int
) -> None:
    domain = limited(zoo_space, dict(zip(mix, (share, other), strict=False)))
    rows = domain.repair(proposals(zoo_space, 6, seed))
    assert_members_inside(domain, rows)
    assert (domain.budget.usage(rows) >= BAND).all()
    assert (domain.repair(rows) == rows).all()


@settings(max_examples=60, deadline=None)
@given(
    full=st.lists(st.integers(2, 24), min_size=1, max_size=4),
    levels=st.sampled_from([None, 2, 3, 5, 8]),
    shares=st.tuples(st.floats(0.0, 1.0), st.floats(0.0, 1.0)),
    mix=st.sampled_from(MIXES),
    seed=st.integers(0, 999),
)
def test_the_band_is_missed_only_where_no_member_is_in_it(
    full: list[int], levels: int | None, shares: tuple[float, float], mix: tuple[str, ...], seed: int
) -> None:
    """All members of a small space, listed one by one, are the judge."""
    space = chain_space(full, levels=levels)
    domain = limited(space, dict(zip(mix, (s + 1e-9 for s in shares), strict=False)))
    every = np.array(list(itertools.product(*(group.choices for group in space.groups))))
    usage = domain.budget.usage(every)
    reachable = min(BAND, usage[usage <= 1.0].max())
    rows = domain.repair(proposals(space, 8, seed))
    assert_members_inside(domain, rows)
    assert (domain.budget.usage(rows) >= reachable).all()


@settings(max_examples=25, deadline=None)
@given(
    full=st.lists(st.integers(16, 96), min_size=5, max_size=12),
    share=st.floats(0.4, 1.0),
    mix=st.sampled_from(MIXES),
    seed=st.integers(0, 999),
)
def test_any_proposal_on_a_long_chain_lands_in_the_band(
    full: list[int], share: float, mix: tuple[str, ...], seed: int
) -> None:
    space = chain_space(full)
    domain = limited(space, dict.fromkeys(mix, share))
    rows = domain.repair(proposals(space, 6, seed))
    assert_members_inside(domain, rows)
    assert (domain.budget.usage(rows) >= BAND).all()


@settings(deadline=None)
@given(st.integers(0, 999), st.sampled_from(["20%", "50%", "90%"]))
def test_members_in_the_band_come_back_unchanged(seed: int, budget: str) -> None:
    domain = BudgetedSpace(chain_space((16, 24, 32, 64)), {"flops": budget})
    rows = domain.sample(5, np.random.default_rng(seed))
    assert (domain.repair(rows) == rows).all()


def test_rows_are_repaired_independently_and_the_proposal_is_only_read() -> None:
    domain = BudgetedSpace(chain_space((16, 24, 32, 64)), {"flops": "40%"})
    given_rows = proposals(domain.space, 9, 0)
    before = given_rows.copy()
    together = domain.repair(given_rows)
    assert np.array_equal(before, given_rows)
    assert all(np.array_equal(domain.repair(row)[0], fixed) for row, fixed in zip(given_rows, together, strict=True))


def test_the_proportions_of_a_proposal_are_kept_as_far_as_integers_allow() -> None:
    domain = BudgetedSpace(chain_space((256, 256, 256)), {"flops": "30%"})
    (row,) = domain.repair(np.array([[2.0, 1.0, 1.5]]))
    assert row / row[1] == pytest.approx([2.0, 1.0, 1.5], rel=0.05)


def test_uniform_has_one_ratio_and_inner_uniform_leaves_residual_groups_whole() -> None:
    chain = chain_space((64, 64, 128, 128))
    groups = tuple(WidthGroup(g.name, g.width, g.choices, g.members, i % 2 == 0) for i, g in enumerate(chain.groups))
    domain = BudgetedSpace(SearchSpace(groups, (), chain.operations, chain.tensors), {"flops": "50%"})
    ratios = np.array(domain.uniform()) / chain.full
    assert np.ptp(ratios) < 0.05
    inner = domain.uniform(inner_only=True)
    assert (inner[0], inner[2]) == (64, 128)
    assert abs(inner[1] / 64 - inner[3] / 128) < 0.05
    for widths in (domain.uniform(), inner):
        assert BAND <= domain.budget.usage(np.array([widths]))[0] <= 1.0


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=4, max_size=4), st.floats(0.3, 1.0), st.integers(0, 99))
def test_pinned_groups_stay_whole_or_the_budget_is_refused(pins: list[bool], share: float, seed: int) -> None:
    space = chain_space((8, 12, 6, 10))
    domain, pinned = limited(space, {"flops": share}), np.array(pins)
    least = np.where(pinned, space.full, space.smallest)
    if not domain.feasible(least[None])[0]:
        with pytest.raises(
            BudgetError, match=r"cannot be reached with the widths that must stay full.*raise the limit"
        ):
            domain.repair(proposals(space, 2, seed), pinned=pinned)
        return
    rows = domain.repair(proposals(space, 5, seed), pinned=pinned)
    assert_members_inside(domain, rows)
    assert (rows[:, pinned] == np.array(space.full)[pinned]).all()


def test_limits_at_the_ends_give_the_smallest_and_the_full_network() -> None:
    space = chain_space((8, 12))
    smallest = BudgetedSpace(space, {"flops": "100%"}).costs(np.array([space.smallest]))
    least = BudgetedSpace(space, {name: float(cost[0]) for name, cost in smallest.items()})
    assert {tuple(row) for row in least.repair(proposals(space, 5, 0)).tolist()} == {space.smallest}
    most = BudgetedSpace(space, {"flops": "100%"})
    assert {tuple(row) for row in most.repair(proposals(space, 5, 0)).tolist()} == {space.full}


def test_sampling_is_a_function_of_the_generator() -> None:
    domain = BudgetedSpace(chain_space((16, 24, 32)), {"flops": "50%"})
    one, other, third = (domain.sample(20, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(one, other)
    assert not np.array_equal(one, third)
    assert len({tuple(row) for row in one.tolist()}) >= 12
