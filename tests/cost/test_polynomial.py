from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoprune.cost import METRICS
from autoprune.cost.polynomial import Polynomial
from autoprune.cost.pricing import make_metric, price
from autoprune.space.sizes import AffineSize
from autoprune.testing.spaces import chain_space

GROUPS = 4
SIZES = st.builds(
    AffineSize,
    st.integers(0, 50),
    st.lists(st.tuples(st.integers(0, GROUPS - 1), st.integers(1, 9)), max_size=3, unique_by=lambda t: t[0]).map(tuple),
)
TERMS = st.lists(st.tuples(st.integers(1, 10**5), st.lists(SIZES, max_size=4)), max_size=5)
WIDTHS = st.tuples(*[st.integers(1, 200)] * GROUPS)


@settings(deadline=None)
@given(TERMS, WIDTHS)
def test_the_value_is_the_sum_of_products_in_plain_integers(
    terms: list[tuple[int, list[AffineSize]]], widths: tuple[int, ...]
) -> None:
    expected = sum(coefficient * math.prod(size(widths) for size in sizes) for coefficient, sizes in terms)
    found = Polynomial(terms, GROUPS)(np.array([widths]))
    assert found.shape == (1,)
    if expected < 2**53 and all(len([s for s in sizes if s.terms]) <= 2 for _, sizes in terms):
        assert found[0] == expected
    assert found[0] == pytest.approx(expected, rel=1e-12)


@settings(deadline=None)
@given(TERMS, st.lists(WIDTHS, min_size=1, max_size=20))
def test_many_rows_at_once_are_each_what_they_are_alone(
    terms: list[tuple[int, list[AffineSize]]], rows: list[tuple[int, ...]]
) -> None:
    function = Polynomial(terms, GROUPS)
    assert function(np.array(rows)) == pytest.approx([function(np.array([row]))[0] for row in rows], rel=1e-12)


def test_one_row_may_come_without_its_own_axis() -> None:
    assert Polynomial([(2, [AffineSize(1, ((0, 3),))])], 1)(np.array([5])).tolist() == [32.0]


@pytest.mark.parametrize("metric", ["flops", "params"])
def test_100000_candidates_cost_what_each_costs_alone(metric: str) -> None:
    space = chain_space((16, 24, 32, 64, 48, 10))
    cost, rng = make_metric(metric, space, {}), np.random.default_rng(0)
    rows = np.stack([rng.integers(1, full + 1, size=100_000) for full in space.full], axis=1)
    together = cost(rows)
    assert together.shape == (100_000,)
    for index in rng.integers(0, 100_000, size=300):
        assert together[index] == cost(rows[index : index + 1])[0]


def test_costs_of_a_chain_by_hand() -> None:
    space, row = chain_space((4, 6)), np.array([[3, 5]])
    assert METRICS.get("flops")(space)(row)[0] == 9 * 64 * (3 * 3 + 3 * 5) + 5 * 10
    assert METRICS.get("params")(space)(row)[0] == 9 * (3 * 3 + 3 * 5) + 5 * 10


@settings(deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=5), st.data())
def test_costs_never_fall_when_a_width_grows(full: list[int], data: st.DataObject) -> None:
    space = chain_space(full)
    widths = [data.draw(st.integers(1, n)) for n in full]
    wider = [data.draw(st.integers(w, n)) for w, n in zip(widths, full, strict=True)]
    for cost in price(space).values():
        lower, upper = cost(np.array([widths, wider]))
        assert lower <= upper
