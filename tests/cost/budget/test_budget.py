from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoprune.cost.budget.budget import Budget
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import BudgetError, RegistryError
from autoprune.testing.spaces import chain_space

SPACE = chain_space((16, 32))  # flops 9*64*(3*16 + 16*32) + 320 = 322,880; params 5,360; smallest 2,314 and 46


def limit(given: str | float, metric: str = "flops") -> float:
    return Budget(SPACE, {metric: given}).limits[0].upper


@pytest.mark.parametrize(
    ("given", "upper"),
    [
        ("50%", 161_440),
        (" 50 % ", 161_440),
        ("12.5%", 40_360),
        ("100%", 322_880),
        ("120%", 387_456),
        (200_000, 200_000),
        (200_000.5, 200_000.5),
        ("200_000", 200_000),
        ("200,000", 200_000),
        ("200k", 200_000),
        ("200 K", 200_000),
        ("0.2M", 200_000),
        ("0.0002G", 200_000),
        ("2e5", 200_000),
        (1e22, 1e22),
    ],
)
def test_a_limit_is_a_percentage_or_a_number_with_or_without_a_unit(given: str | float, upper: float) -> None:
    assert limit(given) == pytest.approx(upper, rel=1e-12)


@pytest.mark.parametrize(
    "given", ["", "half", "-5", "-5%", "0", "0%", "50%%", "%", "1.2.3", "5T", "nan", "inf", "1e999", True, None]
)
def test_anything_else_is_no_limit(given: object) -> None:
    with pytest.raises(
        BudgetError, match=r'budget flops: .* is not a limit; allowed: a percentage .* "50%", or .* "40M"'
    ):
        Budget(SPACE, {"flops": given})  # type: ignore[dict-item]


def test_a_share_written_as_a_fraction_is_explained() -> None:
    with pytest.raises(
        BudgetError, match=r'budget flops: 0\.5 is less than 1; for a share of the full model write "50%"'
    ):
        limit(0.5)


def test_no_limit_an_unknown_metric_and_an_unreachable_one_are_refused() -> None:
    with pytest.raises(BudgetError, match=r'no budget given; name at least one limit, for example \{"flops": "50%"\}'):
        Budget(SPACE, {})
    with pytest.raises(RegistryError, match=r"unknown metric 'flop'.*Did you mean 'flops'\?"):
        Budget(SPACE, {"flop": "50%"})
    with pytest.raises(
        BudgetError, match=r"params ≤ 45 cannot be reached: the smallest network .* costs 46 \(0\.858 %"
    ):
        Budget(SPACE, {"params": 45})
    Budget(SPACE, {"params": 46})


def test_a_limit_says_what_it_is_in_percent() -> None:
    budget = Budget(SPACE, {"flops": "50%", "params": 1340})
    assert str(budget) == "flops ≤ 161,440 (50 % of 322,880) and params ≤ 1,340 (25 % of 5,360)"


@settings(deadline=None)
@given(st.integers(1, 16), st.integers(1, 32), st.floats(2_314, 400_000), st.floats(46, 6_000))
def test_usage_is_that_of_the_tightest_limit(a: int, b: int, flops: float, params: float) -> None:
    budget, row = Budget(SPACE, {"flops": flops, "params": params}), np.array([[a, b]])
    costs = budget.costs_of((a, b))
    inside = costs["flops"] <= flops and costs["params"] <= params
    assert (budget.usage(row)[0] <= 1.0) == inside
    assert budget.usage(row)[0] == max(costs["flops"] / min(flops, 322_880), costs["params"] / min(params, 5_360))


def test_a_limit_above_the_full_model_does_not_bind() -> None:
    domain = BudgetedSpace(SPACE, {"flops": "300%"})
    assert domain.uniform() == SPACE.full


def test_commas_group_thousands_and_nothing_else() -> None:
    space = chain_space([64, 64])
    assert Budget(space, {"params": "20,000"}).limits[0].upper == 20_000
    for given_ in ("12,5%", "1,00", "12,34,567"):
        with pytest.raises(BudgetError, match="is not a limit"):
            Budget(space, {"flops": given_})


def test_true_is_no_number() -> None:
    with pytest.raises(BudgetError, match="is not a limit"):
        Budget(chain_space([8]), {"flops": True})


def test_a_budget_that_the_full_network_keeps_does_not_bind() -> None:
    space = chain_space([8, 8])
    assert not Budget(space, {"flops": "100%", "params": "150%"}).binds
    assert Budget(space, {"flops": "100%", "params": "99%"}).binds
