"""A guess as the prior mean of the score model."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import check_grad

from autoprune.controllers import make_controller
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import ConfigError, RegistryError
from autoprune.proxies import PROXIES
from autoprune.score_model.kernel import Gram, InputMap, Kernel
from autoprune.score_model.noise import ScoreNoise
from autoprune.score_model.posterior import ScoreModel, negative_log_density
from autoprune.space.groups import FloatArray, IntArray
from autoprune.testing.controllers import drive, roomy_domain


def guess(widths: IntArray) -> FloatArray:
    """Nothing that the kernel's own terms are made of."""
    values: FloatArray = 40.0 * np.sin(np.asarray(widths, dtype=np.float64)).sum(axis=1)
    return values


def members(domain: BudgetedSpace, n: int, seed: int = 0) -> IntArray:
    return domain.sample(n, np.random.default_rng(seed))


def test_before_any_score_networks_are_ranked_as_the_guess_ranks_them() -> None:
    domain = roomy_domain()
    rows = members(domain, 30)
    mean = ScoreModel(domain, guess=guess).mean(rows)
    assert np.corrcoef(mean, guess(rows))[0, 1] == pytest.approx(1)
    assert mean.std() == pytest.approx(np.sqrt(Kernel().trend), rel=0.5)


def test_scores_that_follow_the_guess_are_predicted_from_few_of_them_and_others_overrule_it() -> None:
    domain = roomy_domain()
    rows, others = members(domain, 12), members(domain, 40, seed=1)

    def error(truth: FloatArray, given: FloatArray, **settings: object) -> float:
        model = ScoreModel(domain, **settings).fit(rows, given)  # type: ignore[arg-type]
        return float(np.sqrt(((model.mean(others) - truth) ** 2).mean()) / truth.std())

    assert error(guess(others), guess(rows), guess=guess) < 0.3 < error(guess(others), guess(rows))
    truth, given = (-np.log(x[:, 0] / 16.0) for x in (others, rows))
    assert error(truth, given, guess=guess) < 0.6


def test_draws_have_the_covariance_of_the_kernel_and_its_mean() -> None:
    domain = roomy_domain()
    inputs = InputMap(domain, guess)(members(domain, 6))
    kernel = Kernel(trend=0.7, common=0.3, returns=0.2, residual=0.05)
    draws = kernel.draw(20_000, inputs, np.random.default_rng(0))(inputs)
    assert draws.mean(axis=1) == pytest.approx(kernel.mean(inputs), abs=0.06)
    assert np.cov(draws) == pytest.approx(kernel(Gram.between(inputs, inputs)), abs=0.12)
    assert kernel.between(inputs, inputs) == pytest.approx(kernel(Gram.between(inputs, inputs)))


def test_the_slope_of_the_density_is_that_of_finite_differences() -> None:
    domain = roomy_domain()
    rows = members(domain, 15)
    inputs, noise = InputMap(domain, guess)(rows), ScoreNoise(np.ones(15), np.ones(15))
    y = np.random.default_rng(1).standard_normal(15)
    arguments = (inputs, Gram.between(inputs, inputs), y, noise)
    at = Kernel().log() + 0.2
    difference = check_grad(
        lambda x: negative_log_density(x, *arguments)[0], lambda x: negative_log_density(x, *arguments)[1], at
    )
    assert difference < 1e-4


@pytest.mark.parametrize("name", ["nsc", "log_width", "params", "flops", {"name": "nsc"}])
def test_a_surrogate_takes_every_proxy_of_shapes(name: object) -> None:
    domain = roomy_domain()
    controller = make_controller("surrogate", domain, seed=0, settings={"prior": name, "startup": 4})
    asked = drive(controller, 4)
    assert domain.feasible(np.array(asked)).all()
    assert asked != drive(make_controller("surrogate", domain, seed=0, settings={"startup": 4}), 4)


def test_other_proxies_are_refused_with_the_names_of_those_that_work() -> None:
    with pytest.raises(ConfigError, match=r"looks at networks.*log_width, nsc, params, flops"):
        make_controller("surrogate", roomy_domain(), seed=0, settings={"prior": "naswot"})
    with pytest.raises(RegistryError, match="unknown proxy 'nas'"):
        make_controller("surrogate", roomy_domain(), seed=0, settings={"prior": "nas"})
    assert len(PROXIES.names()) > 4
