from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import pytest
from smooth import least_loss

from autoprune.controllers import make_controller
from autoprune.controllers.base import Trial, TrialState
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.score_model.posterior import ScoreModel
from autoprune.space.groups import Widths
from autoprune.testing.spaces import chain_space

FULL = (64,) * 10
TRIALS, SEEDS = 100, 4


def truth(widths: Widths, seed: int) -> float:
    """A smooth score with its own best ratio and importance of every group."""
    rng = np.random.default_rng(seed)
    best, weight = rng.uniform(-1.2, -0.2, len(FULL)), rng.uniform(0.2, 1.0, len(FULL))
    return -float((weight * (np.log(np.array(widths) / FULL) - best) ** 2).mean())


def winner_truth(name: str, seed: int, trials: int) -> float:
    """True score of the answer after noisy scores: the posterior mean's winner; of random search the highest score."""
    domain = BudgetedSpace(chain_space(FULL, levels=16), {"flops": "50%"})
    controller = make_controller(name, domain, seed=seed, settings={})
    rng = np.random.default_rng(seed)
    widths: list[Widths] = []
    scores: list[float] = []
    for number in range(trials):
        (proposal,) = controller.ask()
        widths.append(proposal)
        scores.append(truth(proposal, seed) + 0.03 * rng.standard_normal())
        controller.tell([Trial(number, proposal, TrialState.COMPLETE, scores[-1])])
    mean = np.array(scores)
    if name != "random":
        mean = ScoreModel(domain).fit(np.array(widths), mean).mean(np.array(widths))
    return truth(widths[int(np.argmax(mean))], seed)


@pytest.mark.parametrize(("name", "trials", "share"), [("surrogate", 40, 0.7), ("evolution", 160, 0.8)])
def test_a_learning_controller_beats_random_search_on_a_smooth_score(name: str, trials: int, share: float) -> None:
    learned, random = (np.mean([winner_truth(n, seed, trials) for seed in range(6)]) for n in (name, "random"))
    assert learned > share * random  # both are losses below 0


@cache
def random_loss() -> float:
    """What random search is left with, without noise."""
    return float(np.mean([least_loss("random", seed, TRIALS) for seed in range(SEEDS)]))


@pytest.mark.parametrize(
    ("name", "settings", "share"),
    [
        ("evolution", {}, 0.85),
        ("evolution", {"variant": "metapruning"}, 0.85),
        ("evolution", {"trust_region": 0.3}, 0.85),
        ("annealing", {}, 0.85),
        ("cmaes", {}, 0.85),
        ("abc", {}, 0.95),
        ("level_switch", {"trials": 100}, 0.95),
        ("legr", {}, 0.95),
        ("netadapt", {}, 0.85),
        ("autoslim", {}, 0.85),
        ("fastnas", {}, 0.95),
        ("pareto", {"budgets": []}, 0.95),
    ],
)
def test_the_fields_controllers_beat_random_search_without_noise(
    name: str, settings: Mapping[str, Any], share: float
) -> None:
    learned = np.mean([least_loss(name, seed, TRIALS, settings) for seed in range(SEEDS)])
    assert learned < share * random_loss()


@pytest.mark.slow
def test_the_agent_beats_random_search_after_some_hundred_episodes() -> None:
    learned, random = (np.mean([least_loss(n, seed, 400) for seed in range(3)]) for n in ("amc", "random"))
    assert learned < 0.9 * random


@pytest.mark.parametrize("name", ["evolution", "annealing", "cmaes", "netadapt", "autoslim", "fastnas"])
def test_eight_workers_find_almost_as_much_as_one(name: str) -> None:
    """Batches are asked for before their scores are known: less is learned from trial to trial."""
    parallel = np.mean([least_loss(name, seed, TRIALS, batch=8) for seed in range(SEEDS)])
    assert parallel < 0.95 * random_loss()


def test_failed_trials_never_become_parents() -> None:
    """All trials but those with a wide sixth group fail: the children come from the wide ones."""
    domain = BudgetedSpace(chain_space(FULL, levels=16), {"flops": "50%"})
    controller = make_controller("evolution", domain, seed=0, settings={"population": 8, "sample": 8})
    share = []
    for number in range(120):
        (widths,) = controller.ask()
        ok = widths[5] >= 52
        share.append(ok)
        controller.tell([Trial(number, widths, TrialState.COMPLETE if ok else TrialState.FAILED, 0.0 if ok else None)])
    assert np.mean(share[-40:]) > 2 * np.mean(share[:8])
