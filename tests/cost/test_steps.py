from __future__ import annotations

import numpy as np
import pytest

from autoprune.cost.polynomial import Polynomial
from autoprune.cost.steps import Recomputed, Tightest, steps_of
from autoprune.space.sizes import AffineSize

GROUPS = 6


def polynomial(*, degree: int, seed: int, groups: int = GROUPS) -> Polynomial:
    rng = np.random.default_rng(seed)

    def size() -> AffineSize:
        return AffineSize(int(rng.integers(0, 4)), ((int(rng.integers(groups)), int(rng.integers(1, 4))),))

    terms = [(int(rng.integers(1, 100)), [size() for _ in range(rng.integers(1, degree + 1))]) for _ in range(20)]
    return Polynomial(terms, groups)


@pytest.mark.parametrize("degree", [1, 2, 4])
def test_steps_of_a_polynomial_are_exactly_its_values(degree: int) -> None:
    cost, rng = polynomial(degree=degree, seed=degree), np.random.default_rng(0)
    widths = rng.integers(1, 100, (8, GROUPS))
    ours, plain = steps_of(cost, widths), Recomputed(cost, widths)
    assert type(ours) is not Recomputed
    for _ in range(50):
        columns, values = rng.integers(GROUPS, size=8), rng.integers(1, 200, 8)
        np.testing.assert_array_equal(ours.changed(columns, values), plain.changed(columns, values))
        kept = rng.random(8) < 0.5
        ours.keep(kept)
        plain.keep(kept)


def test_a_cost_without_steps_of_its_own_is_computed_anew() -> None:
    widths = np.array([[1, 2], [3, 4]])
    steps = steps_of(lambda w: np.asarray(w, dtype=np.float64).prod(axis=1), widths)
    assert steps.changed(np.array([0, 1]), np.array([5, 6])).tolist() == [10.0, 18.0]
    steps.keep(np.array([True, False]))
    assert steps.changed(np.array([1, 1]), np.array([3, 5])).tolist() == [15.0, 15.0]
    assert widths.tolist() == [[1, 2], [3, 4]]


def test_the_tightest_of_several_limits_counts() -> None:
    widths = np.array([[1, 1]])
    parts = [(Recomputed(lambda w: np.asarray(w[:, 0], dtype=np.float64), widths), 10.0)]
    parts += [(Recomputed(lambda w: np.asarray(w[:, 1], dtype=np.float64), widths), 4.0)]
    steps = Tightest(parts)
    assert steps.changed(np.array([1]), np.array([3])).tolist() == [0.75]
    steps.keep(np.array([True]))
    assert steps.changed(np.array([0]), np.array([9])).tolist() == [0.9]


def test_many_groups_with_few_pairs_cost_what_single_terms_cost() -> None:
    rng, groups = np.random.default_rng(0), 200
    terms = [(3, (AffineSize(1, ((g, 2),)), AffineSize(0, ((g + 1, 1),)))) for g in range(groups - 1)]
    widths = rng.integers(1, 500, (1030, groups))
    expected = (3 * (1 + 2 * widths[:, :-1]) * widths[:, 1:]).sum(axis=1)
    np.testing.assert_array_equal(Polynomial(terms, groups)(widths), expected)


def test_a_fill_of_many_groups_computes_whole_costs_a_few_times_only(monkeypatch: pytest.MonkeyPatch) -> None:
    from autoprune.cost.budget.repair import BudgetedSpace
    from autoprune.testing.spaces import chain_space

    domain = BudgetedSpace(chain_space((128,) * 150), {"flops": "50%"})
    calls = []
    whole = Polynomial.__call__
    monkeypatch.setattr(Polynomial, "__call__", lambda cost, w: (calls.append(len(w)), whole(cost, w))[1])
    domain.repair(np.random.default_rng(0).uniform(1, 128, (8, 150)))
    assert 0 < len(calls) < 100  # one for each group and pass once
