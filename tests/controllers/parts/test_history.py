from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from smooth import half_of

from autoprune.controllers.base import Trial, TrialState
from autoprune.controllers.parts.history import History, near_best
from autoprune.controllers.parts.ratios import from_log_ratios, log_ratios, random_widths
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.testing.controllers import block_space

DOMAIN = half_of()
MEMBERS = [tuple(map(int, row)) for row in DOMAIN.sample(5, np.random.default_rng(0))] + [DOMAIN.space.full]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.tuples(st.integers(0, 5), st.integers(-3, 3), st.booleans()), max_size=4), max_size=8))
def test_the_best_is_that_of_all_means_inside_the_budget(tells: list[list[tuple[int, int, bool]]]) -> None:
    """Also when the mean of the best one falls."""
    history, scores, number = History(DOMAIN), dict[int, list[float]](), 0
    for tell in tells:
        trials = []
        for index, score, failed in tell:
            state = TrialState.FAILED if failed else TrialState.COMPLETE
            trials.append(Trial(number, MEMBERS[index], state, None if failed else float(score)))
            number += 1
            if not failed:
                scores.setdefault(index, []).append(score)
        history.tell(trials)
    means = {index: float(np.mean(of_index)) for index, of_index in scores.items()}
    assert {MEMBERS[i]: mean for i, mean in means.items()} == {
        w: round(s, 9) for w, s in history.scores.items()
    } or all(abs(history.scores[MEMBERS[i]] - mean) < 1e-9 for i, mean in means.items())
    inside = {index: mean for index, mean in means.items() if index != 5}
    if not inside:
        assert history.best is None
    else:
        assert history.best is not None
        assert abs(history.scores[history.best] - max(inside.values())) < 1e-9


def test_variations_of_the_best_are_near_it_and_new() -> None:
    history = History(DOMAIN)
    rng = np.random.default_rng(0)
    history.tell([Trial(0, DOMAIN.uniform(), TrialState.COMPLETE, 1.0)])
    found = [history.mark(near_best(DOMAIN, history, rng)) for _ in range(10)]
    assert len({*found, DOMAIN.uniform()}) == 11
    changed = [np.abs(np.log(np.array(w) / np.array(DOMAIN.uniform()))) for w in found]
    assert np.median([np.sort(row)[-3] for row in changed]) < 0.1  # one or two groups; repair moves the others a little


def test_log_ratios_and_widths_are_each_others_inverse_blocks_included() -> None:
    domain = BudgetedSpace(block_space(), {"flops": "50%"})
    members = domain.sample(50, np.random.default_rng(0))
    assert set(members[:, [2, 4, 6]].ravel()) == {0, 1}
    assert (domain.repair(from_log_ratios(domain, log_ratios(domain, members))) == members).all()


def test_random_widths_cover_the_ratios_from_the_least_to_one() -> None:
    domain = BudgetedSpace(block_space(), {"flops": "50%"})
    widths = random_widths(domain, 2_000, np.random.default_rng(0), least=0.3)
    ratios = widths[:, 0] / 32
    assert 0.3 <= ratios.min() < 0.32
    assert 0.98 < ratios.max() <= 1.0
    on = widths[:, 2]
    assert set(on) == {0.0, 1.0}
    assert 0.68 < on.mean() < 0.82
