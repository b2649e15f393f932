from __future__ import annotations

import numpy as np
import pytest
from smooth import FULL, half_of, loss, search

from autoprune.controllers.fastnas import FastNAS
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import ConfigError
from autoprune.testing.spaces import chain_space


def test_curves_first_then_the_network_of_one_tolerance() -> None:
    """The first network inside the budget loses the same in every group, as far as its widths allow."""
    domain = BudgetedSpace(chain_space((512,) * 6), {"flops": "50%"})
    weights = np.array([0.2, 1.0, 3.0, 0.5, 2.0, 1.0])

    def losses(widths: tuple[int, ...]) -> np.ndarray:
        return weights * (1 - np.array(widths) / 512)  # straight curves: interpolation is exact

    found = [w for w, _ in search(FastNAS(domain, seed=0), lambda w: -float(losses(w).sum()), 140)]
    curves = [w for w in found if sum(a != 512 for a in w) <= 1]
    assert found[: len(curves)] == curves
    assert len(curves) == 1 + 6 * 20  # the full network, and 0.95, 0.90, ... and the smallest width of each group
    each = losses(found[len(curves)])
    free = each < 0.99 * weights * (1 - 1 / 512)  # not at the smallest width
    assert free.sum() >= 4
    assert np.ptp(each[free]) < 0.03 * each.max()


def test_a_narrower_width_never_counts_as_losing_less() -> None:
    """A group whose score jumps back at small widths is not cut there because of it."""
    domain = half_of()

    def score(widths: tuple[int, ...]) -> float:
        lucky = 10.0 if widths[0] == domain.space.smallest[0] else 0.0
        return -loss(widths, 0) - 3.0 * (widths[0] < 48) + lucky

    found = search(FastNAS(domain, seed=0), score, 8 * 16 + 2)
    first_inside = next(w for w, _ in found if domain.feasible(np.array([w]))[0])
    assert first_inside[0] >= 48


def test_a_short_search_gets_coarse_curves_of_all_groups() -> None:
    trials = 20  # 16 for the curves: the full network, the middle of 8 curves, and 7 quarters
    found = search(FastNAS(half_of(), seed=0, trials=trials), lambda w: -loss(w, 0), trials)
    curves = [w for w, _ in found[:16]]
    assert curves[0] == FULL
    cut = [next(i for i, width in enumerate(w) if width != 64) for w in curves[1:]]
    assert sorted(cut[:8]) == list(range(8))
    assert half_of().feasible(np.array([w for w, _ in found[16:]])).all()


@pytest.mark.parametrize("step", [0.0, 0.6])
def test_a_step_out_of_range_is_refused(step: float) -> None:
    with pytest.raises(ConfigError, match="step must be"):
        FastNAS(half_of(), seed=0, step=step)
