"""Scores of trainings that were stopped early: what all of them lack is learned, and is not held against the widths."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm, spearmanr

from autoprune.controllers import make_controller
from autoprune.controllers.base import Trial, TrialState
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.score_model.kernel import Kernel
from autoprune.score_model.noise import ScoreNoise
from autoprune.score_model.posterior import ScoreModel
from autoprune.space.groups import FloatArray, IntArray, Widths
from autoprune.testing.spaces import chain_space

LACKS = {1.0: 0.0, 1 / 3: 12.0, 1 / 9: 30.0}
"""Points that a network is behind after such a share of its training."""


@pytest.fixture(scope="module")
def domain() -> BudgetedSpace:
    return BudgetedSpace(chain_space((32, 64, 64, 128, 128, 32), levels=16), {"flops": "50%"})


def truth(widths: IntArray) -> FloatArray:
    ratios = np.log(widths / np.array([32, 64, 64, 128, 128, 32]))
    value: FloatArray = 80.0 + ratios @ np.array([3.0, 0.3, 0.5, 0.2, 0.1, 2.0])
    return value


def stopped_early(domain: BudgetedSpace, seed: int) -> tuple[IntArray, FloatArray, FloatArray]:
    """Twenty complete trainings and forty that were stopped, any of them."""
    rng = np.random.default_rng(seed)
    widths, fidelity = domain.sample(60, rng), np.repeat([1.0, 1 / 3, 1 / 9], 20)
    lacks = np.array([LACKS[f] for f in fidelity])
    return widths, truth(widths) - lacks + rng.normal(scale=0.5, size=60), fidelity


@pytest.mark.parametrize("seed", range(3))
def test_what_early_scores_lack_is_not_held_against_the_widths(domain: BudgetedSpace, seed: int) -> None:
    widths, scores, fidelity = stopped_early(domain, seed)
    unseen = domain.sample(200, np.random.default_rng(99))
    mean = ScoreModel(domain).fit(widths, scores, fidelity=fidelity).mean(unseen)
    blind = ScoreModel(domain).fit(widths, scores).mean(unseen)
    complete = ScoreModel(domain).fit(widths[:20], scores[:20]).mean(unseen)
    error, of_blind, of_complete = (np.abs(m - truth(unseen)).mean() for m in (mean, blind, complete))
    assert error < 0.5 * of_blind, "the level is that of whole trainings"
    assert error < of_complete, "early scores teach something about the widths"
    assert spearmanr(mean, truth(unseen)).statistic > 0.9


@pytest.mark.parametrize("collapsed", [1.0, -1e4])
@pytest.mark.parametrize("index", [30, 50])
def test_one_early_score_of_a_collapsed_network_spoils_nothing(
    domain: BudgetedSpace, index: int, collapsed: float
) -> None:
    widths, scores, fidelity = stopped_early(domain, 0)
    scores[index] = collapsed
    unseen = domain.sample(200, np.random.default_rng(99))
    mean = ScoreModel(domain).fit(widths, scores, fidelity=fidelity).mean(unseen)
    assert np.abs(mean - truth(unseen)).mean() < 1.5
    assert spearmanr(mean, truth(unseen)).statistic > 0.8


@pytest.mark.parametrize("complete", [0, 1, 2])
@pytest.mark.parametrize("unit", [0.01, 1.0, 1000.0])
def test_few_complete_scores_and_any_unit_are_enough(domain: BudgetedSpace, complete: int, unit: float) -> None:
    widths, scores, fidelity = stopped_early(domain, 1)
    rows = np.r_[0:complete, 20:60]
    unseen = domain.sample(200, np.random.default_rng(99))
    mean = ScoreModel(domain).fit(widths[rows], unit * scores[rows], fidelity=fidelity[rows]).mean(unseen)
    assert spearmanr(mean, truth(unseen)).statistic > 0.85


def test_equal_complete_scores_do_not_hide_what_early_ones_say(domain: BudgetedSpace) -> None:
    widths, scores, fidelity = stopped_early(domain, 2)
    scores[:20] = 78.0
    unseen = domain.sample(200, np.random.default_rng(99))
    mean, sd = ScoreModel(domain).fit(widths, scores, fidelity=fidelity).predict(unseen)
    assert spearmanr(mean, truth(unseen)).statistic > 0.6
    assert sd.min() > 0.01


def test_noise_that_is_shared_has_the_covariance_of_a_brownian_motion() -> None:
    noise = ScoreNoise(np.array([1.0, 2.0, 2.0]), np.exp(-np.array([0.0, 0.5, 2.0])))
    covariance = noise.covariance(0.3)
    by_hand = 100 * np.array([[0, 0, 0], [0, 0.5, 0.5], [0, 0.5, 2.0]]) + np.diag([0.3, 1.2, 1.2])
    assert np.allclose(covariance, by_hand)
    assert np.isfinite(multivariate_normal(np.zeros(3), covariance).logpdf(np.ones(3)))
    drawn = np.cov(noise.draw(0.3, 20_000, np.random.default_rng(0)))
    assert np.allclose(drawn, covariance, atol=4 * np.sqrt(2 / 20_000) * covariance.max())


def test_draws_of_complete_scores_are_as_if_there_were_no_fidelity() -> None:
    noise = ScoreNoise(np.array([1.0, 2.0]), np.ones(2))
    normal = np.random.default_rng(0).standard_normal((2, 5))
    assert np.array_equal(noise.draw(0.25, 5, np.random.default_rng(0)), normal * np.array([[0.5], [1.0]]))


def test_one_early_score_among_complete_ones_leaves_them_as_they_are(domain: BudgetedSpace) -> None:
    """Nothing is known of what that fidelity lacks, so its score says next to nothing."""
    widths, scores, _ = stopped_early(domain, 0)
    kernel, unseen = Kernel(noise=0.2), domain.sample(50, np.random.default_rng(5))
    with_it = np.array([1.0] * 20 + [1 / 9])
    model = ScoreModel(domain).fit(widths[:21], np.append(scores[:20], 0.0), fidelity=with_it, kernel=kernel)
    complete = ScoreModel(domain).fit(widths[:20], scores[:20], kernel=kernel)
    assert np.abs(model.mean(unseen) - complete.mean(unseen)).max() < 0.15 * truth(unseen).std()


def test_the_surrogate_learns_from_trainings_that_were_stopped(domain: BudgetedSpace) -> None:
    """Its proposals are better than those of one that is told the same scores as if they were of whole trainings."""

    def proposals(shares: bool, seed: int) -> list[Widths]:
        controller = make_controller("surrogate", domain, seed=seed, settings={}, trials=100)
        told = zip(*stopped_early(domain, seed), strict=True)
        for number, (widths, score, share) in enumerate(told):
            state = TrialState.COMPLETE if share == 1.0 else TrialState.PRUNED
            trial = Trial(number, tuple(map(int, widths)), state, float(score), fidelity=share if shares else 1.0)
            controller.tell([trial])
        return controller.ask(8)

    gains = [
        truth(np.array(proposals(True, seed))).mean() - truth(np.array(proposals(False, seed))).mean()
        for seed in range(6)
    ]
    assert np.mean(gains) > norm.ppf(0.95) * np.std(gains, ddof=1) / np.sqrt(len(gains))
