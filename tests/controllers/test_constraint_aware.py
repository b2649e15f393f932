from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from autoprune.controllers.base import Trial, TrialState
from autoprune.controllers.constraint_aware import ConstraintAware
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import ConfigError
from autoprune.testing.controllers import drive, roomy_domain, score_of
from autoprune.testing.spaces import chain_space


def test_the_constraint_cools_as_the_code_of_the_paper_has_it() -> None:
    """Their example: from 238 ms to 80 ms in five stages with coefficient 0.5."""
    domain = roomy_domain()
    full = float(domain.budget.usage(np.array([domain.space.full]))[0])
    theirs = [80 + (238 - 80) * math.exp(-0.5 * (t + 1)) + (80 - 238) * math.exp(-0.5 * 5) for t in range(5)]
    share = [(latency - 80) / (238 - 80) for latency in theirs]
    assert ConstraintAware(domain, seed=0).constraints == pytest.approx([1 + (full - 1) * s for s in share])
    assert ConstraintAware(domain, seed=0).constraints[-1] == 1


def test_every_stage_meets_its_constraint_and_the_last_the_budget() -> None:
    domain = roomy_domain()
    controller = ConstraintAware(domain, seed=1, trials=40, startup=5)
    usage = domain.budget.usage(np.array(drive(controller, 10)))
    limits = np.repeat(controller.constraints, 8)
    assert (usage <= limits + 1e-9).all()
    assert (usage >= 0.9 * limits).all()
    assert (usage[-8:] <= 1).all()


def test_even_a_search_of_one_trial_ends_inside_the_budget() -> None:
    domain = roomy_domain()
    (only,) = ConstraintAware(domain, seed=0, trials=1).ask()
    assert domain.feasible(np.array([only])).all()


def test_the_improvement_is_the_expectation_of_its_definition() -> None:
    domain = roomy_domain()
    controller = ConstraintAware(domain, seed=0, trials=20, startup=6)
    drive(controller, 3)
    controller._refit()
    rows = domain.sample(4, np.random.default_rng(0))
    mean, deviation = controller._model.predict(rows)
    best = float(mean.mean())
    found = controller._improvement(rows, best)
    for m, s, one in zip(mean, deviation, found, strict=True):
        integral, _ = quad(lambda y, m=m, s=s: (y - best) * norm.pdf(y, m, s), best, m + 12 * s)
        assert one == pytest.approx(integral, rel=1e-5)


def test_it_finds_better_networks_than_random_ones_do() -> None:
    domain = BudgetedSpace(chain_space((16, 24, 32, 24, 16)), {"flops": "30%"})
    better = []
    for seed in range(2):
        asked = np.array(drive(ConstraintAware(domain, seed=seed, trials=40), 10))
        inside = asked[domain.feasible(asked)]
        random = domain.sample(len(inside), np.random.default_rng(seed))
        better.append(max(map(score_of, map(tuple, inside))) - max(map(score_of, map(tuple, random))))
    assert np.mean(better) > 0


def test_failed_trials_teach_nothing() -> None:
    domain = roomy_domain()
    controller = ConstraintAware(domain, seed=0, startup=1)
    controller.tell([Trial(n, w, TrialState.FAILED, None) for n, w in enumerate(controller.ask(3))])
    assert len(domain.space.full) == len(controller.ask()[0])


@pytest.mark.parametrize("settings", [{"stages": 0}, {"cooling": 0.0}, {"cooling": math.inf}, {"startup": 0}])
def test_wrong_settings_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"constraint_aware: {next(iter(settings))} must be"):
        ConstraintAware(roomy_domain(), seed=0, **settings)  # type: ignore[arg-type]


def test_lower_ends_do_not_rise_with_the_constraint() -> None:
    """Of two limits the tighter one says how much looser a stage is; a raised lower end could pass the full network."""
    limits = {"flops": "25%", "params": {"min": "15%", "max": "60%"}}
    domain = BudgetedSpace(chain_space((16, 24, 32, 24), levels=8), limits)
    controller = ConstraintAware(domain, seed=0, trials=20, startup=5)
    asked = np.array(drive(controller, 5, score=lambda w: sum(map(math.log, w))))
    assert domain.feasible(asked[-4:]).all()
