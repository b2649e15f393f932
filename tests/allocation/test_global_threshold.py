from __future__ import annotations

import numpy as np
import pytest

from autoprune.allocation import ALLOCATIONS
from autoprune.allocation.global_threshold import global_threshold
from autoprune.cost.budget.budget import BAND
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import ConfigError
from autoprune.space.groups import FloatArray
from autoprune.testing.spaces import chain_space

WIDTHS = (16, 32, 64, 24)


def domain_at(budget: str, levels: int | None = None) -> BudgetedSpace:
    return BudgetedSpace(chain_space(WIDTHS, levels=levels), {"flops": budget})


def random_scores(seed: int) -> list[FloatArray]:
    rng = np.random.default_rng(seed)
    return [rng.gamma(1.0, rng.uniform(0.1, 10.0), size=width) for width in WIDTHS]


@pytest.mark.parametrize("seed", range(10))
def test_widths_are_the_counts_above_the_lowest_affordable_threshold(seed: int) -> None:
    domain, scores = domain_at("40%"), random_scores(seed)
    widths = global_threshold(domain, scores, normalise="none")
    affordable = [0] * len(WIDTHS)
    for threshold in sorted((float(x) for s in scores for x in s), reverse=True):
        counts = [max(1, sum(float(x) >= threshold for x in s)) for s in scores]
        if domain.feasible(np.array([counts]))[0]:
            affordable = counts
    assert domain.budget.usage(np.array([widths]))[0] >= BAND
    assert all(abs(w - count) <= 2 for w, count in zip(widths, affordable, strict=True))  # the repair fills the rest


@pytest.mark.parametrize("normalise", ["l2", "mean", "max"])
def test_the_scale_of_a_group_does_not_matter_once_normalised(normalise: str) -> None:
    domain, scores = domain_at("40%"), random_scores(3)
    scaled = [s * factor for s, factor in zip(scores, (1e-3, 1.0, 1e3, 7.0), strict=True)]
    rule = ALLOCATIONS.get("global_threshold")
    assert rule(domain, scores, normalise=normalise) == rule(domain, scaled, normalise=normalise)
    assert rule(domain, scores, normalise="none") != rule(domain, scaled, normalise="none")


def test_equal_scores_everywhere_give_uniform_widths() -> None:
    domain = domain_at("40%")
    widths = global_threshold(domain, [np.ones(width) for width in WIDTHS], normalise="mean")
    ratios = np.array(widths) / WIDTHS
    assert np.ptp(ratios) < 0.1


def test_a_group_without_importance_keeps_its_smallest_choice() -> None:
    domain = domain_at("40%", levels=8)
    scores = random_scores(1)
    scores[2] = np.zeros(WIDTHS[2])
    assert global_threshold(domain, scores)[2] <= domain.space.groups[2].choices[2]  # repair may fill a notch or two


def test_misfits_are_refused_by_name() -> None:
    domain, scores = domain_at("40%"), random_scores(0)
    with pytest.raises(ConfigError, match="Did you mean 'mean'"):
        ALLOCATIONS.get("global_threshold")(domain, scores, normalise="meen")
    with pytest.raises(ConfigError, match="'conv1' needs 32"):
        global_threshold(domain, [scores[0], scores[1][:-1], *scores[2:]])
    with pytest.raises(ConfigError, match="'conv0' needs 16"):
        global_threshold(domain, [np.full(16, np.nan), *scores[1:]])
    with pytest.raises(ConfigError, match="2 groups"):
        global_threshold(domain, scores[:2])
