from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from small_networks import space_of

from autoprune.allocation.knapsack import knapsack, solution
from autoprune.allocation.parts import choices
from autoprune.allocation.parts.choices import least_loss, undominated
from autoprune.allocation.parts.curves import Curve, descending, grid, measured
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import EvaluationError
from autoprune.space.groups import FloatArray, Widths
from autoprune.testing.allocations import SPACES, random_scores, smooth_probe
from autoprune.testing.spaces import chain_space


def random_curves(domain: BudgetedSpace, seed: int, points: int = 5) -> list[Curve]:
    rng = np.random.default_rng(seed)
    curves = []
    for group in domain.space.groups:
        widths = np.array([*grid(group, points), group.width])
        curves.append(Curve(widths, np.append(np.sort(rng.gamma(1.0, 5.0, len(widths) - 1))[::-1], 0.0)))
    return curves


def by_brute_force(domain: BudgetedSpace, curves: Sequence[Curve]) -> float:
    rows = np.array(list(itertools.product(*(curve.widths for curve in curves))))
    losses = np.array([sum(pair) for pair in itertools.product(*(curve.losses for curve in curves))])
    return float(losses[domain.budget.usage(rows) <= 1.0].min())


def lost(curves: Sequence[Curve], widths: Sequence[int]) -> float:
    return sum(float(c.losses[list(c.widths).index(w)]) for c, w in zip(curves, widths, strict=True))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("limits", [{"flops": "40%"}, {"params": "30%"}, {"flops": "50%", "params": "40%"}], ids=str)
@pytest.mark.parametrize("name", ["chain", "heads", "single choice", "blocks"])
def test_small_spaces_are_solved_exactly_on_their_true_costs(name: str, limits: dict[str, str], seed: int) -> None:
    domain = BudgetedSpace(SPACES[name](), limits)
    curves = random_curves(domain, seed)
    widths, proved = solution(domain, curves)
    assert proved
    assert domain.budget.usage(widths[None, :])[0] <= 1.0
    assert lost(curves, widths) == pytest.approx(by_brute_force(domain, curves))


@pytest.mark.parametrize("seed", range(6))
def test_without_branch_and_bound_it_comes_close(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choices, "PARTIAL", 0)
    domain = BudgetedSpace(SPACES["chain"](), {"flops": "40%"})
    curves = random_curves(domain, seed)
    widths, proved = solution(domain, curves)
    assert not proved
    assert domain.budget.usage(widths[None, :])[0] <= 1.0
    best = by_brute_force(domain, curves)
    assert best <= lost(curves, widths) <= 1.1 * best + 1e-9


@pytest.mark.parametrize("seed", range(10))
def test_the_dynamic_programme_is_exact_for_costs_that_add_up(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choices, "PARTIAL", 0)
    rng = np.random.default_rng(seed)
    options = [np.arange(1, 6) for _ in range(5)]
    losses = [np.append(np.sort(rng.random(4))[::-1], 0.0) for _ in options]
    weights = rng.random(5)

    def cost(rows: np.ndarray) -> FloatArray:
        return np.asarray(rows @ weights / (0.5 * 5 * weights.sum()))

    widths, _ = least_loss(options, losses, [cost])
    rows = np.array(list(itertools.product(*options)))
    sums = np.array([sum(pair) for pair in itertools.product(*losses)])
    found = sum(float(lost_[w - 1]) for lost_, w in zip(losses, widths, strict=True))
    assert found == pytest.approx(sums[cost(rows) <= 1.0].min())


def test_undominated_pairs_are_all_there_and_no_others() -> None:
    rng = np.random.default_rng(0)
    costs = [np.sort(rng.random(4)) for _ in range(4)]
    losses = [np.sort(rng.random(4))[::-1] for _ in range(4)]
    every = np.array(list(itertools.product(range(4), repeat=4)))
    total = np.array(
        [[sum(c[i] for c, i in zip(table, row, strict=True)) for table in (costs, losses)] for row in every]
    )
    front = {
        tuple(row)
        for row, (cost, loss) in zip(every, total, strict=True)
        if not ((total[:, 0] <= cost) & (total[:, 1] <= loss) & (total != (cost, loss)).any(axis=1)).any()
    }
    assert set(map(tuple, undominated(costs, losses))) == front


def test_a_large_network_gets_at_least_what_uniform_widths_lose() -> None:
    domain = BudgetedSpace(space_of("resnet20"), {"flops": "40%", "params": "50%"})
    curves = random_curves(domain, 0, points=8)
    widths, _ = solution(domain, curves)
    uniform = domain.uniform()
    at_uniform = sum(float(np.interp(w, c.widths, c.losses)) for w, c in zip(uniform, curves, strict=True))
    assert domain.budget.usage(widths[None, :])[0] <= 1.0
    assert lost(curves, widths) < at_uniform


def test_importance_is_what_halp_maximises() -> None:
    domain = BudgetedSpace(chain_space((6, 7, 5)), {"flops": "45%"})
    scores = random_scores(domain.space, 3)

    def probe(rows: Sequence[Widths]) -> FloatArray:
        raise AssertionError("nothing is to be measured")

    widths = knapsack(domain, scores, probe=probe, table="importance", points=10)
    members = np.array(list(itertools.product(*(g.choices for g in domain.space.groups))))
    members = members[domain.feasible(members)]
    sums = [np.concatenate([[0.0], np.cumsum(np.sort(s)[::-1])]) for s in scores]
    best = max(sum(float(s[w]) for s, w in zip(sums, row, strict=True)) for row in members)
    kept = sum(float(s[w]) for s, w in zip(sums, widths, strict=True))
    assert kept >= 0.97 * best  # the repair exchanges notches where the optimum leaves more than 3 % of the budget


def test_isotonic_curves_are_those_of_scikit_learn() -> None:
    from sklearn.isotonic import IsotonicRegression

    rng = np.random.default_rng(0)
    for n in (1, 2, 7, 40):
        values = rng.standard_normal(n) - np.linspace(0, 2, n)
        reference = IsotonicRegression(increasing=False).fit_transform(np.arange(n), values)
        np.testing.assert_allclose(descending(values), reference, atol=1e-12)


def test_networks_without_a_score_are_left_out_of_the_tables() -> None:
    domain = BudgetedSpace(chain_space((8, 12)), {"flops": "50%"})
    smooth = smooth_probe(domain.space)

    def failing(rows: Sequence[Widths]) -> FloatArray:
        scores = smooth(rows)
        scores[[i for i, row in enumerate(rows) if row[0] < 8]] = np.nan
        return scores

    first, second = measured("test", domain, failing, 4)
    assert first.widths.tolist() == [1, 8]  # what the others lose on average, at its smallest width
    assert first.losses[0] == pytest.approx(
        (smooth([(8, 12)])[0] - smooth([(8, w) for w in second.widths[:-1]])).mean()
    )
    with pytest.raises(EvaluationError, match="full network could not be scored"):
        measured("test", domain, lambda rows: np.full(len(rows), np.nan), 4)
