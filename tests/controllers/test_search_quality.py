from __future__ import annotations

import numpy as np
import pytest

from autoprune.controllers import make_controller
from autoprune.controllers.base import Trial, TrialState
from autoprune.controllers.posterior import ScoreModel
from autoprune.cost.repair import BudgetedSpace
from autoprune.space.groups import Widths
from autoprune.testing.spaces import chain_space

FULL = (64,) * 10


def truth(widths: Widths, seed: int) -> float:
    """A smooth score with its own best ratio and importance of every group."""
    rng = np.random.default_rng(seed)
    best, weight = rng.uniform(-1.2, -0.2, len(FULL)), rng.uniform(0.2, 1.0, len(FULL))
    return -float((weight * (np.log(np.array(widths) / FULL) - best) ** 2).mean())


def winner_truth(name: str, seed: int, trials: int) -> float:
    """True score of the posterior mean's winner after noisy scores."""
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
    mean, _ = ScoreModel(domain).fit(np.array(widths), np.array(scores)).predict(np.array(widths))
    return truth(widths[int(np.argmax(mean))], seed)


@pytest.mark.parametrize(("name", "trials", "share"), [("surrogate", 40, 0.7), ("evolution", 160, 0.8)])
def test_a_learning_controller_beats_random_search_on_a_smooth_score(name: str, trials: int, share: float) -> None:
    learned, random = (np.mean([winner_truth(n, seed, trials) for seed in range(6)]) for n in (name, "random"))
    assert learned > share * random  # both are losses below 0


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
