"""Scores of rungs on one scale: against least squares and the truth they were drawn from."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm, rankdata

from autoprune.score_model.rungs import ENOUGH, Line, RungScores, normal_scores
from autoprune.space.groups import FloatArray


def drawn(n: int, *, seed: int = 0) -> tuple[FloatArray, FloatArray]:
    """Three rungs in a chain of correlations .8 and .7, and the truth of all; few reach the last one."""
    rng = np.random.default_rng(seed)
    first = rng.standard_normal(n)
    second = 0.8 * first + 0.6 * rng.standard_normal(n)
    last = 50 + 5 * (0.7 * second + 0.714 * rng.standard_normal(n))
    scores = np.column_stack([first, second, last])
    scores[first < 0.3, 1:] = np.nan
    scores[scores[:, 1] < np.nanmedian(scores[:, 1]), 2] = np.nan
    return scores, last


def test_a_line_is_that_of_least_squares_once_there_are_many_points() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4000, 2))
    y = 0.3 - 0.4 * x[:, 0] + 0.9 * x[:, 1] + 0.2 * rng.standard_normal(4000)
    line = Line.through(x, y)
    exact, rest, *_ = np.linalg.lstsq(np.column_stack([np.ones(4000), x]), y, rcond=None)
    assert line.coefficients == pytest.approx(exact, abs=3e-3)
    assert line.left == pytest.approx(rest[0] / 4000, rel=4e-2)


def test_a_line_of_few_points_is_what_sampling_its_prior_says() -> None:
    """The posterior by brute force: draws of the prior, weighted by how probable they make the points."""
    x, y = np.array([[-1.0], [0.5], [1.2]]), np.array([-0.2, 0.9, 0.1])
    rng = np.random.default_rng(1)
    left = 0.375 / rng.gamma(1.5, size=400_000)
    level = rng.standard_normal(400_000) * np.sqrt(left / 1.0)
    slope = 0.5 + rng.standard_normal(400_000) * np.sqrt(left / 3.0)
    logs = norm.logpdf(y[:, None], level + slope * x, np.sqrt(left)).sum(axis=0)
    weight = np.exp(logs - logs.max())
    weight /= weight.sum()
    line = Line.through(x, y)
    assert line.coefficients == pytest.approx([weight @ level, weight @ slope], abs=0.01)
    assert line.left == pytest.approx(weight @ left, rel=0.03)


def test_what_is_expected_from_a_rung_is_right_although_the_better_ones_went_on() -> None:
    """Without the rung between, by which those were chosen that have both, nearly all is expected to be as good."""
    errors, inside = [], []
    for seed in range(20):
        scores, truth = drawn(300, seed=seed)
        mean, deviation = RungScores(scores).from_rung(0)
        directly, _ = RungScores(scores[:, [0, 2]]).from_rung(0)
        errors.append([mean - truth, directly - truth])
        inside.append(np.mean(np.abs(mean - truth) < 2 * deviation))
    bias, squared = np.mean(errors, axis=(0, 2)), np.mean(np.square(errors), axis=(0, 2))
    assert abs(bias[0]) < 0.1 * 5
    assert bias[1] > 0.5 * 5
    assert squared[0] ** 0.5 == pytest.approx(5 * (1 - 0.56**2) ** 0.5, rel=0.12), "what cannot be known"
    assert squared[0] < 0.8 * squared[1]
    assert np.mean(inside) == pytest.approx(0.954, abs=0.03)


def test_whatever_rises_with_the_scores_of_a_rung_says_the_same() -> None:
    scores, _ = drawn(60)
    other = scores.copy()
    other[:, 0], other[:, 1] = np.exp(9 * scores[:, 0]), -1e6 / (5 + scores[:, 1])
    for mine, its in zip(RungScores(scores).rows(), RungScores(other).rows(), strict=True):
        assert mine == pytest.approx(its, abs=1e-9)
    moved = scores.copy()
    moved[:, 2] = 3 - 0.01 * (60 - scores[:, 2])
    (_, before, off), (_, after, off_after) = RungScores(scores).rows(), RungScores(moved).rows()
    assert after == pytest.approx(3 - 0.01 * (60 - before)), "in the units of the last rung"
    assert off_after == pytest.approx(0.01 * off)


def test_scores_of_the_last_rung_stay_and_the_others_know_how_far_they_may_be_off() -> None:
    scores, _ = drawn(80)
    who, values, deviations = RungScores(scores).rows()
    complete = np.flatnonzero(np.isfinite(scores[:, 2]))
    real = deviations == 0
    assert who[real].tolist() == complete.tolist()
    assert (values[real] == scores[complete, 2]).all()
    assert sorted(who[~real]) == list(range(80)), "one that is moved for each candidate, of its highest rung below"
    assert (deviations[~real] > 2.0).all(), "5 * 0.7 is left over by the last step"
    best = RungScores(scores).best_known()
    assert (best[complete] == scores[complete, 2]).all()
    assert np.isfinite(best).all()


def test_a_cheap_score_that_says_nothing_teaches_nothing_and_one_that_is_turned_round_is_turned_back() -> None:
    rng = np.random.default_rng(3)
    last = rng.standard_normal(60)
    for cheap, expected in ((rng.standard_normal(60), 0.0), (-last, -1.0), (last, 1.0)):
        scores = np.column_stack([cheap, last])
        scores[40:, 1] = np.nan
        mean, _ = RungScores(scores).from_rung(0)
        assert np.polyfit(normal_scores(cheap), mean, 1)[0] == pytest.approx(expected, abs=0.25)


def test_before_enough_reach_the_last_rung_the_one_below_says_which_way_is_up() -> None:
    scores, _ = drawn(12)
    scores[:, 2] = np.nan
    scores[np.flatnonzero(np.isfinite(scores[:, 1]))[: ENOUGH - 1], 2] = 7.0
    found = RungScores(scores)
    assert (found.top, found.on_last_scale) == (1, False)
    values = found.best_known()
    only_first = np.isnan(scores[:, 1])
    assert np.corrcoef(values[only_first], scores[only_first, 0])[0, 1] > 0.9
    assert RungScores(scores[:2, :1]).on_last_scale
    assert RungScores(np.array([[1.0, 2.0]])).on_last_scale, "all have it"


def test_normal_scores_are_those_of_the_ranks() -> None:
    given = np.array([3.0, np.nan, -1.0, 3.0, 50.0])
    found = normal_scores(given)
    assert np.isnan(found[1])
    ranks = rankdata([3.0, -1.0, 3.0, 50.0])
    assert norm.cdf(found[[0, 2, 3, 4]]) == pytest.approx((ranks - 0.5) / 4)
