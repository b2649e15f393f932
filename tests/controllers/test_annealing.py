from __future__ import annotations

import numpy as np
from smooth import half_of

from autoprune.controllers.annealing import Annealing
from autoprune.controllers.base import Trial, TrialState


def test_trials_of_others_are_no_moves() -> None:
    """Uniform and nine random networks, which a run scores first, leave the walk at the best of them, still hot."""
    domain = half_of()
    others = [domain.uniform(), *(tuple(map(int, row)) for row in domain.sample(9, np.random.default_rng(0)))]
    for seed in range(20):
        controller = Annealing(domain, seed=seed, trials=40)
        scores = np.random.default_rng(seed).normal(size=len(others))
        for number, (widths, score) in enumerate(zip(others, scores, strict=True)):
            controller.tell([Trial(number, widths, TrialState.COMPLETE, float(score))])
        assert controller._current == (others[int(np.argmax(scores))], scores.max())
        assert controller._between((1.0, 0.02)) == 1.0


def test_own_moves_are_also_accepted_where_they_are_worse() -> None:
    domain = half_of()
    accepted = []
    for seed in range(40):
        controller = Annealing(domain, seed=seed, trials=40)
        for number, score in enumerate((1.0, 0.0)):
            (widths,) = controller.ask()
            controller.tell([Trial(number, widths, TrialState.COMPLETE, score)])
        assert controller._current is not None
        accepted.append(controller._current[1] == 0.0)
    assert 0.2 < np.mean(accepted) < 0.6  # exp(-1), the unit of temperature being this loss


def test_what_is_handed_out_in_place_of_a_move_is_one() -> None:
    domain = half_of()
    controller = Annealing(domain, seed=0, trials=40)
    (proposed,) = controller.ask()
    other = tuple(map(int, domain.sample(1, np.random.default_rng(1))[0]))
    controller.exchange(proposed, other)
    controller.tell([Trial(0, other, TrialState.COMPLETE, 1.0)])
    assert controller._scored == 1
    assert proposed not in controller._history.seen
