"""What the page of rungs on synthetic problems says, and the scores that its problems have."""

from __future__ import annotations

import numpy as np
import pytest
from rungs_synthetic import COST, NOISE, RATES, RULES, Found, _scores, page, trials
from search_problems.synthetic import SyntheticProblem


def test_rungs_that_are_behind_by_more_than_the_interval_are_told() -> None:
    gains = {0.5: 0.2, 0.9: -0.2}
    found = [
        Found(correlation, 221, "equal", 0.1 * n, 0.1 * n + gain + 0.01 * (-1) ** n, 1.0)
        for correlation, gain in gains.items()
        for n in range(6)
    ]
    text, behind = page(found)
    assert behind == ["correlation 0.9, 221 candidates, equal: rungs are behind"]
    rows = [line for line in text.splitlines() if line.startswith("| 0")]
    assert [row.split(" | ")[0] for row in rows] == ["| 0.5", "| 0.9"]
    assert "+0.20 ± 0.01" in rows[0]
    assert "-0.20 ± 0.01" in rows[1]


@pytest.mark.parametrize(("arm", "share"), [("a third", 1 / 3), ("equal", 1 / 8.3)])
def test_searches_with_rungs_are_meant_to_cost_what_the_plain_one_does(arm: str, share: float) -> None:
    rungs = trials(arm, 500) * (1 + share * COST) + (RULES + 1 + RATES) * COST
    assert rungs == pytest.approx(500, abs=3)


@pytest.mark.parametrize("correlation", [0.5, 0.9])
def test_the_cheap_score_agrees_with_the_truth_as_far_as_told(correlation: float) -> None:
    problem = SyntheticProblem("pairwise", 20, seed=1003)
    cheap, counting, true = _scores(problem, correlation, 3)
    rows = [tuple(row) for row in problem.domain.sample(1500, np.random.default_rng(9)).tolist()]
    truth = np.array([true(row) for row in rows])
    of_cheap = np.corrcoef(truth, np.log([cheap(row) for row in rows]))[0, 1]
    assert of_cheap == pytest.approx(correlation, abs=0.08)
    rest = np.array([counting(row) for row in rows]) - truth
    assert rest.std() == pytest.approx(NOISE, rel=0.1)
    assert true(problem.uniform) == 0
