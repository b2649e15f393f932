from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.optimize import minimize
from small_networks import space_of

from autoprune.allocation.log_width import log_width, optimum
from autoprune.allocation.parts.shapes import writers
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.testing.allocations import SPACES
from autoprune.testing.spaces import chain_space


def by_scipy(domain: BudgetedSpace, counts: np.ndarray) -> np.ndarray:
    """The same convex program, solved by sequential quadratic programming over log widths."""
    low, high = (np.log(np.array(w, dtype=float)) for w in (domain.space.smallest, domain.space.full))
    found = minimize(
        lambda x: -float(counts @ x),
        high - 1.0,
        jac=lambda x: -counts,
        bounds=list(zip(low, high, strict=True)),
        constraints=[
            {"type": "ineq", "fun": lambda x: 1.0 - np.array([domain.budget.usage(np.exp(x)[None, :])[0]])},
        ],
        method="SLSQP",
        options={"ftol": 1e-12, "maxiter": 500},
    )
    return np.exp(found.x)


@pytest.mark.parametrize("budget", ["15%", "40%", "80%"])
@pytest.mark.parametrize("metric", ["flops", "params"])
@pytest.mark.parametrize("name", ["chain", "resnet20", "mobilenetv2"])
def test_it_is_the_optimum_that_scipy_finds(name: str, metric: str, budget: str) -> None:
    space = SPACES["chain"]() if name == "chain" else space_of(name)
    domain = BudgetedSpace(space, {metric: budget})
    counts = np.array([max(1, len(of_group)) for of_group in writers(space)], dtype=float)
    ours, reference = optimum(domain), by_scipy(domain, counts)
    assert domain.budget.usage(ours[None, :])[0] == pytest.approx(1.0, abs=1e-4)
    assert float(counts @ np.log(ours)) >= float(counts @ np.log(reference)) - 1e-3


def test_free_groups_have_shares_of_the_cost_in_proportion_to_their_writers() -> None:
    domain = BudgetedSpace(space_of("resnet20"), {"flops": "30%"})
    widths = optimum(domain)
    counts = np.array([len(of_group) for of_group in writers(domain.space)], dtype=float)
    free = (widths > 1.001 * np.array(domain.space.smallest)) & (widths < 0.999 * np.array(domain.space.full))
    shares = []
    for g in np.flatnonzero(free):  # a finite difference of the cost itself, one group at a time
        more = widths.copy()
        more[g] *= 1.0001
        cost = domain.budget.metrics["flops"]
        shares.append(float(cost(more[None, :])[0] - cost(widths[None, :])[0]) / counts[g])
    assert free.sum() > 3
    assert np.ptp(shares) < 1e-2 * np.mean(shares)


def test_several_limits_are_met_almost_exactly() -> None:
    domain = BudgetedSpace(chain_space((16, 32, 64, 24)), {"flops": "40%", "params": "30%"})
    assert 0.97 <= domain.budget.usage(optimum(domain)[None, :])[0] <= 1.0 + 1e-6


def test_rounded_widths_are_close_to_the_best_member_of_all() -> None:
    domain = BudgetedSpace(chain_space((16, 24, 20)), {"flops": "40%"})
    members = np.array(list(itertools.product(*(g.choices for g in domain.space.groups))))
    members = members[domain.feasible(members)]
    best = np.log(members).sum(axis=1).max()
    assert float(np.log(log_width(domain)).sum()) >= best - 0.1
