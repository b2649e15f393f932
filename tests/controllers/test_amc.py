from __future__ import annotations

import numpy as np
import pytest
import torch
from smooth import FULL, half_of, search

from autoprune.controllers.amc import Amc, _Agent
from autoprune.controllers.base import Trial, TrialState
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import ConfigError
from autoprune.testing.controllers import drive, roomy_domain
from autoprune.testing.spaces import chain_space


def test_torchs_generator_and_gradient_mode_are_left_alone() -> None:
    before = torch.get_rng_state()
    with torch.no_grad():
        first = drive(Amc(roomy_domain(), seed=1, warmup=2))
        assert not torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    assert drive(Amc(roomy_domain(), seed=1, warmup=2)) == first


def test_actions_are_clipped_so_that_the_rest_can_still_meet_the_budget() -> None:
    """An agent that wants to keep everything keeps the first groups and cuts the last ones as far as allowed."""
    domain = BudgetedSpace(chain_space((64,) * 6), {"flops": "40%"})
    controller = Amc(domain, seed=0, least=0.25)
    widths = controller._least * 64
    kept = []
    for group in range(6):
        kept.append(controller._within_budget(group, 1.0, widths))
        widths[group] = kept[-1] * 64
        assert domain.budget.usage(widths[None, :])[0] <= 1.0
    assert kept[0] == 1.0
    assert kept[-1] < 0.3
    assert domain.budget.usage(widths[None, :])[0] > 0.9


def test_the_state_tells_what_is_reduced_and_what_is_left() -> None:
    domain = half_of()
    controller = Amc(domain, seed=0)
    widths = tuple(32 for _ in FULL)
    states, actions = controller._trajectory(widths)
    assert actions == pytest.approx(np.full(8, 0.5))
    reduced, left, last = states[:, -3], states[:, -2], states[:, -1]
    assert reduced[0] == 0.0
    assert (np.diff(reduced) > 0).all()
    assert (np.diff(left) < 0).all()
    assert list(last) == [1.0] + [0.5] * 7
    assert states[:, :-3].min() >= 0
    assert states[:, :-3].max() <= 1


def test_the_agent_learns_a_rewarded_action() -> None:
    """One step, reward -(a - 0.3)^2: the actor ends near 0.3, from wherever it starts."""
    rng = np.random.default_rng(0)
    agent = _Agent(3, rng)
    state = np.array([0.2, 0.5, 1.0])
    episodes = [(state[None, :], np.array([a]), -((a - 0.3) ** 2)) for a in rng.uniform(0, 1, 200)]
    for _ in range(6):
        agent.learn(episodes, rng, steps=100)
    assert agent.act(state) == pytest.approx(0.3, abs=0.12)


def test_it_goes_where_the_score_grows() -> None:
    found = search(Amc(half_of(), seed=0, warmup=20), lambda w: float(w[0] - w[7]), 90)
    gain = [score for _, score in found]
    assert np.mean(gain[-20:]) > np.mean(gain[:20]) + 15


def test_others_trials_fill_the_buffer() -> None:
    domain = half_of()
    controller = Amc(domain, seed=0, warmup=10)
    rows = domain.sample(150, np.random.default_rng(0))
    controller.tell([Trial(i, tuple(map(int, w)), TrialState.COMPLETE, float(w[0])) for i, w in enumerate(rows)])
    assert len(controller._episodes) == 100


def test_a_random_start_may_be_longer_than_the_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    controller = Amc(half_of(), seed=0, warmup=120)
    rows = half_of().sample(118, np.random.default_rng(0))
    controller.tell([Trial(i, tuple(map(int, w)), TrialState.COMPLETE, float(w[0])) for i, w in enumerate(rows)])
    trained: list[int] = []
    monkeypatch.setattr(controller._agent, "learn", lambda *_, steps: trained.append(steps))
    after = []
    for number in range(118, 122):
        (widths,) = controller.ask()
        controller.tell([Trial(number, widths, TrialState.COMPLETE, 0.0)])
        after.append(len(trained))
    assert after == [0, 1, 2, 3]


@pytest.mark.parametrize("settings", [{"least": 0.0}, {"least": 1.0}, {"warmup": 0}])
def test_settings_out_of_range_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"amc: {next(iter(settings))} must be"):
        Amc(half_of(), seed=0, **settings)  # type: ignore[arg-type]
