"""Scores whose standard errors are known: the model weighs them by these, and loses nothing where they say nothing."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from autoprune.controllers import make_controller
from autoprune.controllers.base import Trial, TrialState
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import EvaluationError
from autoprune.score_model.kernel import Gram, InputMap, Kernel
from autoprune.score_model.noise import ScoreNoise
from autoprune.score_model.posterior import ScoreModel, negative_log_density
from autoprune.space.groups import FloatArray, IntArray, Widths
from autoprune.testing.spaces import chain_space
from autoprune.trials.selection import smooth


@pytest.fixture(scope="module")
def domain() -> BudgetedSpace:
    return BudgetedSpace(chain_space((32, 64, 64, 128, 128, 32), levels=16), {"flops": "50%"})


def truth(widths: IntArray) -> FloatArray:
    ratios = np.log(widths / np.array([32, 64, 64, 128, 128, 32]))
    value: FloatArray = 80.0 + ratios @ np.array([3.0, 0.3, 0.5, 0.2, 0.1, 2.0])
    return value


def errors(domain: BudgetedSpace, deviations: FloatArray, unit: float = 1.0) -> tuple[float, float]:
    """Mean error of the posterior mean on unseen widths over ten draws, with and without the known noise."""
    found = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        widths, unseen = domain.sample(len(deviations), rng), domain.sample(200, np.random.default_rng(99))
        scores = truth(widths) + rng.normal(size=len(deviations)) * np.hypot(deviations, 0.2)
        models = [ScoreModel(domain).fit(widths, unit * scores, known=known) for known in (unit * deviations, None)]
        found.append([np.sqrt(np.mean((model.mean(unseen) / unit - truth(unseen)) ** 2)) for model in models])
    with_it, without = np.mean(found, axis=0)
    return float(with_it), float(without)


@pytest.mark.parametrize("unit", [0.01, 1.0, 1000.0])
def test_known_noise_helps_where_it_differs(domain: BudgetedSpace, unit: float) -> None:
    """As after racing: a few candidates were scored on many examples, most on few."""
    with_it, without = errors(domain, np.repeat([0.1, 4.0], [10, 40]), unit)
    assert with_it < 0.85 * without


@pytest.mark.parametrize("deviation", [0.0, 0.3, 1.0])
def test_known_noise_is_harmless_where_it_does_not(domain: BudgetedSpace, deviation: float) -> None:
    with_it, without = errors(domain, np.full(40, deviation))
    assert with_it < 1.05 * without


def test_no_known_noise_leaves_every_bit_as_it_was(domain: BudgetedSpace) -> None:
    rng = np.random.default_rng(0)
    widths = domain.sample(30, rng)
    scores = truth(widths) + rng.normal(size=30)
    models = [ScoreModel(domain).fit(widths, scores, known=known) for known in (None, np.zeros(30))]
    assert models[0].kernel == models[1].kernel
    unseen = domain.sample(50, rng)
    assert np.array_equal(models[0].predict(unseen), models[1].predict(unseen))


def test_noise_has_its_known_part_in_covariance_and_draws() -> None:
    noise = ScoreNoise(np.array([1.0, 2.0]), np.ones(2), np.array([0.0, 3.0])).in_units(2.0)
    assert np.allclose(noise.covariance(0.25), np.diag([0.25, 1.0 + 2.25]))
    drawn = noise.draw(0.25, 20_000, np.random.default_rng(0)).var(axis=1)
    assert drawn == pytest.approx(np.diag(noise.covariance(0.25)), rel=4 * np.sqrt(2 / 20_000))


def test_the_gradient_knows_that_known_noise_is_not_estimated(domain: BudgetedSpace) -> None:
    rng = np.random.default_rng(1)
    widths = domain.sample(12, rng)
    inputs = InputMap(domain)(widths)
    gram, y = Gram.between(inputs, inputs), rng.normal(size=12)
    noise = ScoreNoise(np.ones(12), np.ones(12), rng.random(12))
    at = Kernel().log()
    _, gradient = negative_log_density(at, inputs, gram, y, noise)
    for i, step in enumerate(1e-5 * np.eye(len(at))):
        high, low = (negative_log_density(at + s * step, inputs, gram, y, noise)[0] for s in (1, -1))
        assert gradient[i] == pytest.approx((high - low) / 2e-5, rel=1e-4, abs=1e-6)
    value = negative_log_density(at, inputs, gram, y, noise)[0]
    other = negative_log_density(at, inputs, gram, y, ScoreNoise(np.ones(12), np.ones(12)))[0]
    covariances = [Kernel()(gram) + n.covariance(Kernel().noise) for n in (noise, ScoreNoise(np.ones(12), np.ones(12)))]
    by_hand = [-multivariate_normal(Kernel().mean(inputs), c).logpdf(y) for c in covariances]
    assert value - other == pytest.approx(by_hand[0] - by_hand[1], rel=1e-5)


@pytest.mark.parametrize("known", [-0.1, np.nan, np.inf])
def test_standard_errors_that_are_none_are_refused(domain: BudgetedSpace, known: float) -> None:
    with pytest.raises(EvaluationError, match="known standard errors must be finite numbers of at least 0"):
        ScoreModel(domain).fit(domain.sample(1, np.random.default_rng(0)), np.zeros(1), known=np.array([known]))


def trials(domain: BudgetedSpace, paired: bool, error: float | None) -> list[Trial]:
    rng = np.random.default_rng(3)
    widths = [tuple(map(int, row)) for row in domain.sample(24, rng)]
    scores = truth(np.array(widths)) + rng.normal(size=24)
    errors = [None if error is None else error * (1 + n % 5) for n in range(24)]
    return [
        Trial(n, w, TrialState.COMPLETE, float(s), standard_error=e, paired=paired and e is not None)
        for n, (w, s, e) in enumerate(zip(widths, scores, errors, strict=True))
    ]


def test_proposals_and_choice_change_by_paired_errors_only(domain: BudgetedSpace) -> None:
    """The error of a score by itself is mostly common to all candidates: searches of today stay as they are."""

    def proposals(told: list[Trial]) -> list[Widths]:
        controller = make_controller("surrogate", domain, seed=0, settings={}, trials=60)
        controller.tell(told)
        return controller.ask(3)

    plain, single, paired = trials(domain, False, None), trials(domain, False, 1.0), trials(domain, True, 1.0)
    assert proposals(single) == proposals(plain)
    assert smooth(domain, single) == smooth(domain, plain)
    assert proposals(paired) != proposals(plain)
    assert smooth(domain, paired) != smooth(domain, plain)
