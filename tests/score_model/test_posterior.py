from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import check_grad
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, Exponentiation
from sklearn.gaussian_process.kernels import Kernel as SklearnKernel

from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import EvaluationError
from autoprune.score_model.kernel import Gram, InputMap, Kernel, KernelInputs
from autoprune.score_model.noise import ScoreNoise
from autoprune.score_model.posterior import ScoreModel, most_probable_kernel, negative_log_density
from autoprune.space.groups import FloatArray, IntArray
from autoprune.testing.spaces import chain_space

KERNEL = Kernel(trend=0.6, common=0.3, returns=0.4, totals=0.2, quadratic=0.3, residual=0.5, length=0.8, noise=0.1)
FULL = np.array([16, 24, 32, 24])


@pytest.fixture(scope="module")
def domain() -> BudgetedSpace:
    return BudgetedSpace(chain_space(tuple(FULL)), {"flops": "50%"})


def data(domain: BudgetedSpace, n: int, seed: int = 0) -> tuple[IntArray, FloatArray]:
    rng = np.random.default_rng(seed)
    widths = domain.sample(n, rng)
    return widths, truth(widths) + 0.1 * rng.standard_normal(n)


def truth(widths: IntArray) -> FloatArray:
    ratios = np.log(widths / FULL)
    value: FloatArray = 70.0 + ratios @ np.array([1.0, 0.2, 0.6, 0.4]) - 0.5 * ratios[:, 0] * ratios[:, 2]
    return value


@pytest.mark.parametrize("seed", range(3))
def test_the_gradient_is_that_of_finite_differences(domain: BudgetedSpace, seed: int) -> None:
    widths, scores = data(domain, 25, seed)
    inputs = InputMap(domain)(widths)
    y, rng = (scores - scores.mean()) / scores.std(), np.random.default_rng(seed)
    noise = ScoreNoise(rng.uniform(0.5, 2.0, 25), rng.choice([0.1, 0.3, 1.0], 25))
    arguments = (inputs, Gram.between(inputs, inputs), y, noise)
    point = Kernel().log() + np.random.default_rng(seed).normal(size=8)
    error = check_grad(
        lambda p: negative_log_density(p, *arguments)[0], lambda p: negative_log_density(p, *arguments)[1], point
    )
    assert error < 1e-4 * np.linalg.norm(negative_log_density(point, *arguments)[1])


def curved(groups: int) -> SklearnKernel:
    """Constant, quadratic and residual terms over the log widths."""
    quadratic = ConstantKernel(KERNEL.quadratic / groups**2) * Exponentiation(DotProduct(sigma_0=1e-9), 2)
    residual = ConstantKernel(KERNEL.residual) * RBF(KERNEL.length * np.sqrt(groups))
    return ConstantKernel(1.0) + quadratic + residual


def linear_features(inputs: KernelInputs) -> FloatArray:
    """Columns whose products are the power-law terms."""
    common = np.sqrt(KERNEL.common) * inputs.returns.sum(axis=1, keepdims=True)
    return np.hstack([common, np.sqrt(KERNEL.returns) * inputs.returns])


@pytest.mark.parametrize("part", ["curved", "linear"])
def test_the_posterior_is_that_of_scikit_learn(domain: BudgetedSpace, part: str) -> None:
    """The terms of the other part, and the totals, are given a negligible variance."""
    widths, scores = data(domain, 40)
    others, _ = data(domain, 30, seed=9)
    noise_scale = np.random.default_rng(1).uniform(0.5, 2.0, 40)
    if part == "curved":
        kernel, reference = replace(KERNEL, common=1e-12, returns=1e-12, totals=1e-12), curved(4)
    else:
        kernel = replace(KERNEL, totals=1e-12, quadratic=1e-12, residual=1e-12)
        reference = ConstantKernel(1.0) + DotProduct(sigma_0=1e-9)
    mean, sd = ScoreModel(domain).fit(widths, scores, noise_scale, kernel=kernel).predict(others)
    inputs = InputMap(domain)
    x, new = (inputs(w).groups if part == "curved" else linear_features(inputs(w)) for w in (widths, others))
    trend, new_trend = (np.sqrt(KERNEL.trend) * inputs(w).returns.sum(axis=1) for w in (widths, others))
    process = GaussianProcessRegressor(reference, alpha=KERNEL.noise * noise_scale**2, optimizer=None)
    process.fit(x, (scores - scores.mean()) / scores.std() - trend)
    expected, expected_sd = process.predict(new, return_std=True)
    expected = scores.mean() + scores.std() * (expected + new_trend)
    expected_sd = scores.std() * expected_sd
    np.testing.assert_allclose(mean, expected, rtol=1e-6)
    np.testing.assert_allclose(sd, expected_sd, rtol=1e-4)


def test_the_probability_of_being_better_is_that_of_drawn_functions(domain: BudgetedSpace) -> None:
    widths, scores = data(domain, 12)
    model = ScoreModel(domain).fit(widths, scores, kernel=replace(KERNEL, noise=1.0))
    first, second = ((int(a), int(b), int(c), int(d)) for a, b, c, d in data(domain, 2, seed=9)[0])
    values = model.mean_and_draws(4000, np.random.default_rng(0))(np.array([first, second]))[:, 1:]
    probability = model.probability_better(first, second)
    assert probability == pytest.approx((values[0] > values[1]).mean(), abs=0.03)
    assert model.probability_better(second, first) == pytest.approx(1 - probability)
    assert model.probability_better(first, first) == 0.5


def test_leads_are_those_of_drawn_functions_and_those_of_like_widths_are_sure(domain: BudgetedSpace) -> None:
    widths, scores = data(domain, 12)
    model = ScoreModel(domain).fit(widths, scores, kernel=replace(KERNEL, noise=1.0))
    others, uniform = data(domain, 6, seed=9)[0], domain.uniform()
    values = model.mean_and_draws(4000, np.random.default_rng(0))(np.concatenate([others, [uniform]]))[:, 1:]
    gaps = values[:-1] - values[-1]
    mean, deviation = model.lead(others, uniform)
    np.testing.assert_allclose(mean, gaps.mean(axis=1), atol=4 * gaps.std(axis=1).max() / np.sqrt(4000))
    np.testing.assert_allclose(deviation, gaps.std(axis=1), rtol=0.1)
    apart = np.hypot(model.predict(others)[1], model.predict(np.array([uniform]))[1])
    nearest = int(np.abs(np.log(others / uniform)).sum(axis=1).argmin())
    assert deviation[nearest] < 0.5 * apart[nearest]
    assert [float(values[0]) for values in model.lead(np.array([uniform]), uniform)] == [0.0, 0.0]


def test_before_any_score_the_best_widths_are_near_uniform() -> None:
    """Groups of equal cost and returns that diminish: two scores that only say "wider is better" lead to uniform."""
    domain = BudgetedSpace(chain_space((64,) * 8, levels=16), {"flops": "50%"})
    model = ScoreModel(domain).fit(np.array([domain.space.full, domain.space.smallest]), np.array([1.0, 0.0]))
    members = np.concatenate([domain.sample(500, np.random.default_rng(0)), [domain.uniform()]])
    best = members[np.argmax(model.mean(members))]
    spread = np.log(best / 64).std()
    assert spread < np.quantile(np.log(members / 64).std(axis=1), 0.05)


def test_samples_have_the_posteriors_mean_and_deviation(domain: BudgetedSpace) -> None:
    widths, scores = data(domain, 12)
    others, _ = data(domain, 8, seed=9)
    model = ScoreModel(domain).fit(widths, scores, kernel=KERNEL)
    rng = np.random.default_rng(0)
    batches = [model.mean_and_draws(100, rng)(others) for _ in range(20)]
    values = np.concatenate([batch[:, 1:] for batch in batches], axis=1)
    mean, sd = model.predict(others)
    np.testing.assert_allclose(batches[0][:, 0], mean)
    np.testing.assert_allclose(values.mean(axis=1), mean, atol=0.12 * sd.max())
    np.testing.assert_allclose(values.std(axis=1), sd, rtol=0.1)


def test_a_sampled_function_is_a_function(domain: BudgetedSpace) -> None:
    widths, scores = data(domain, 12)
    functions = ScoreModel(domain).fit(widths, scores).mean_and_draws(3, np.random.default_rng(0))
    np.testing.assert_allclose(functions(widths)[::-1], functions(widths[::-1]))
    assert functions(widths).shape == (12, 4)


def test_the_covariance_is_the_sum_of_the_terms(domain: BudgetedSpace) -> None:
    first, second = (InputMap(domain)(data(domain, n, seed=n)[0]) for n in (5, 7))
    np.testing.assert_allclose(KERNEL.between(first, second), KERNEL(Gram.between(first, second)))
    np.testing.assert_allclose(np.diag(KERNEL.between(first, first)), KERNEL(Gram.diagonal(first)))


def test_samples_of_the_prior_have_the_kernels_covariance(domain: BudgetedSpace) -> None:
    inputs = InputMap(domain)(data(domain, 6)[0])
    rng = np.random.default_rng(0)
    values = np.concatenate([KERNEL.draw(200, inputs, rng)(inputs) for _ in range(50)], axis=1)
    expected = KERNEL.between(inputs, inputs)
    np.testing.assert_allclose(np.cov(values), expected, atol=0.08 * expected.max())


def test_smoothing_predicts_the_truth_better_than_the_scores_do(domain: BudgetedSpace) -> None:
    rng = np.random.default_rng(2)
    widths = domain.sample(60, rng)
    noise = truth(widths).std()
    scores = truth(widths) + noise * rng.standard_normal(60)
    mean, _ = ScoreModel(domain).fit(widths, scores).predict(widths)
    assert np.std(mean - truth(widths)) < 0.6 * noise


def test_noise_is_found(domain: BudgetedSpace) -> None:
    rng = np.random.default_rng(3)
    widths = domain.sample(150, rng)
    scores = truth(widths) + 0.3 * rng.standard_normal(150)
    model = ScoreModel(domain).fit(widths, scores)
    assert np.sqrt(model.kernel.noise) * scores.std() == pytest.approx(0.3, rel=0.25)


def test_a_remembered_score_says_nothing_about_the_noise(domain: BudgetedSpace) -> None:
    widths = domain.sample(20, np.random.default_rng(0))
    scores = np.random.default_rng(1).standard_normal(20)
    again = np.array([3, 3, 7, 12, 12])
    once = ScoreModel(domain).fit(widths, scores)
    twice = ScoreModel(domain).fit(np.concatenate([widths, widths[again]]), np.concatenate([scores, scores[again]]))
    assert twice.kernel == once.kernel
    np.testing.assert_array_equal(twice.mean(widths), once.mean(widths))
    measured = ScoreModel(domain).fit(np.concatenate([widths, widths[again]]), np.concatenate([scores, -scores[again]]))
    assert measured.kernel.noise > once.kernel.noise


@pytest.mark.parametrize("collapsed", [-3.0, -1e6])
def test_a_collapsed_network_does_not_make_the_others_look_equal(domain: BudgetedSpace, collapsed: float) -> None:
    widths, scores = data(domain, 40)
    given = np.array([scores.min() + collapsed, *scores[1:]])
    mean = ScoreModel(domain).fit(widths, given).mean(widths)
    assert mean[0] < np.median(mean)
    assert np.corrcoef(mean[1:], truth(widths)[1:])[0, 1] > 0.8


def test_half_a_search_that_collapsed_is_taken_as_it_is(domain: BudgetedSpace) -> None:
    widths, scores = data(domain, 40)
    narrow = widths[:, 0] < np.median(widths[:, 0])
    scores[narrow] = 10.0
    mean = ScoreModel(domain).fit(widths, scores).mean(widths)
    assert mean[~narrow].mean() > mean[narrow].mean() + 30.0


def test_a_score_with_less_noise_is_followed_more_closely(domain: BudgetedSpace) -> None:
    widths, scores = data(domain, 20)
    scores[0] += 2.0
    kept = [
        ScoreModel(domain).fit(widths, scores, np.array([scale] + [1.0] * 19), kernel=KERNEL).predict(widths[:1])[0][0]
        for scale in (0.1, 1.0, 10.0)
    ]
    assert kept[0] > kept[1] > kept[2]


def test_the_unit_of_the_score_does_not_matter(domain: BudgetedSpace) -> None:
    widths, scores = data(domain, 20)
    mean, sd = ScoreModel(domain).fit(widths, scores).predict(widths)
    scaled_mean, scaled_sd = ScoreModel(domain).fit(widths, scores / 1000 - 3).predict(widths)
    np.testing.assert_allclose(scaled_mean, mean / 1000 - 3, rtol=1e-4)
    np.testing.assert_allclose(scaled_sd, sd / 1000, rtol=1e-2)


@pytest.mark.parametrize("scores", [[], [np.nan, -np.inf, np.inf], [0.5], [0.5, 0.6], [0.7] * 8, [1e9] * 3, [0.0] * 4])
def test_few_equal_or_failed_scores_give_finite_answers(domain: BudgetedSpace, scores: list[float]) -> None:
    widths, others = data(domain, len(scores))[0], data(domain, 5, seed=4)[0]
    model = ScoreModel(domain).fit(widths, np.array(scores))
    mean, sd = model.predict(others)
    usable = [s for s in scores if np.isfinite(s)]
    assert np.isfinite(mean).all()
    assert (sd > 0).all()
    assert np.isfinite(model.mean_and_draws(2, np.random.default_rng(0))(others)).all()
    if len(usable) > 1 and len(set(usable)) == 1:
        np.testing.assert_allclose(mean, usable[0], atol=1e-9)


@pytest.mark.parametrize("scores", [[], [0.5]])
def test_without_scores_to_compare_uniform_is_expected_to_be_the_best(scores: list[float]) -> None:
    domain = BudgetedSpace(chain_space((64,) * 8, levels=16), {"flops": "50%"})
    members = np.concatenate([domain.sample(200, np.random.default_rng(0)), [domain.uniform()]])
    mean = ScoreModel(domain).fit(members[: len(scores)], np.array(scores)).mean(members)
    assert mean[-1] > np.quantile(mean[:-1], 0.98)
    assert mean[-1] > mean[:-1].mean()


def test_the_kernel_is_a_maximum_that_does_not_depend_on_chance(domain: BudgetedSpace) -> None:
    widths, scores = data(domain, 30)
    inputs = InputMap(domain)(widths)
    y, ones = (scores - scores.mean()) / scores.std(), ScoreNoise(np.ones(30), np.ones(30))
    best = most_probable_kernel(inputs, y, ones).log()
    gram = Gram.between(inputs, inputs)
    steps = 0.3 * np.vstack([np.eye(8), -np.eye(8)])
    density = [negative_log_density(best + step, inputs, gram, y, ones)[0] for step in steps]
    assert negative_log_density(best, inputs, gram, y, ones)[0] <= min(density)
    assert np.array_equal(best, most_probable_kernel(inputs, y, ones).log())


def test_a_group_with_one_choice_says_nothing() -> None:
    space = chain_space((1, 16, 16))
    inputs: KernelInputs = InputMap(BudgetedSpace(space, {"flops": "60%"}))(np.array([[1, 4, 5], [1, 16, 16]]))
    assert (inputs.groups[:, 0] == 0).all()


def test_misfitting_arrays_are_refused(domain: BudgetedSpace) -> None:
    widths, scores = data(domain, 5)
    with pytest.raises(EvaluationError, match="5 width vectors"):
        ScoreModel(domain).fit(widths, scores[:4])
    with pytest.raises(EvaluationError, match="above 0"):
        ScoreModel(domain).fit(widths, scores, np.zeros(5))
    with pytest.raises(EvaluationError, match=r"above 0 and at most 1, got 1\.5"):
        ScoreModel(domain).fit(widths, scores, fidelity=np.array([1.0, 0.5, 1.5, 1.0, 1.0]))
