from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
import pytest
from fake_search import ROOMY

from autoprune.controllers.base import Trial, TrialState
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.errors import EvaluationError
from autoprune.space.groups import Widths
from autoprune.testing.spaces import chain_space
from autoprune.trials.selection import _moved, median_trial, probability_better, shortlist, smooth, sure_leads

WIDE = BudgetedSpace(chain_space((32,) * 6, levels=16), {"flops": "50%"})
MEMBERS: list[Widths] = [tuple(map(int, row)) for row in ROOMY.sample(30, np.random.default_rng(0))]


def truth(widths: Widths) -> float:
    return float(np.log(widths[2] / widths[0]))


def trials(noise: float, *, lucky: int | None = None) -> list[Trial]:
    rng = Random(0)
    scores = [truth(w) + rng.gauss(0, noise) + (3 * noise if i == lucky else 0) for i, w in enumerate(MEMBERS)]
    return [Trial(i, w, TrialState.COMPLETE, s) for i, (w, s) in enumerate(zip(MEMBERS, scores, strict=True))]


def test_every_scored_member_has_a_mean_and_a_spread() -> None:
    posterior = smooth(ROOMY, trials(0.1))
    assert set(posterior) == set(MEMBERS)
    assert all(np.isfinite(mean) and sd >= 0 for mean, sd in posterior.values())


def test_the_smoothed_scores_are_nearer_the_truth_than_the_raw_ones() -> None:
    noisy = trials(0.5)
    posterior = smooth(ROOMY, noisy)
    smoothed = np.mean([(posterior[t.widths][0] - truth(t.widths)) ** 2 for t in noisy])
    assert smoothed < 0.5 * np.mean([((t.score or 0) - truth(t.widths)) ** 2 for t in noisy])


def test_luck_does_not_win() -> None:
    worst = min(range(len(MEMBERS)), key=lambda i: truth(MEMBERS[i]))
    lucky = trials(1.0, lucky=worst)
    assert MEMBERS[worst] not in shortlist(sure_leads(ROOMY, lucky, ()), 3, ROOMY)


def test_failed_trials_teach_nothing_and_none_at_all_is_an_error() -> None:
    scored = trials(0.1)
    failed = Trial(99, ROOMY.space.full, TrialState.FAILED, None)
    assert smooth(ROOMY, [*scored, failed]) == smooth(ROOMY, scored)
    with pytest.raises(EvaluationError, match="no candidate has a score"):
        smooth(ROOMY, [failed])


@pytest.mark.parametrize(("scale", "number"), [(0.4, 8), (1.0, 8), (1.0, 2)])
def test_trials_that_inherited_otherwise_count_on_the_scale_of_the_re_scores(scale: float, number: int) -> None:
    searched = trials(0.1)
    chosen = sorted(searched, key=lambda trial: -(trial.score or 0))[:number]
    rescored = {trial.widths: 5.0 + scale * (trial.score or 0) for trial in chosen}
    moved = [replace(trial, score=5.0 + scale * (trial.score or 0)) for trial in searched]
    found, expected = smooth(ROOMY, searched, rescored, apart=True), smooth(ROOMY, moved, rescored)
    assert max(abs(found[w][0] - expected[w][0]) for w in MEMBERS) < 0.25  # rounding makes two of equal scores
    assert max(abs(smooth(ROOMY, searched, rescored)[w][0] - expected[w][0]) for w in MEMBERS) > 1
    assert smooth(ROOMY, searched, {}, apart=True) == smooth(ROOMY, searched)


def test_scores_are_moved_along_a_line_that_ascends_and_what_is_left_is_noise() -> None:
    widths = MEMBERS[:6]
    given = [(w, float(i), 0.3) for i, w in enumerate(widths)]
    found = _moved(given, {w: 7.0 + 0.5 * i + (0.1 if i % 2 else -0.1) for i, w in enumerate(widths)})
    slope, offset = np.polyfit(range(6), [7.0 + 0.5 * i + (0.1 if i % 2 else -0.1) for i in range(6)], 1)
    assert [score for _, score, _ in found] == pytest.approx([offset + slope * i for i in range(6)])
    rest = np.array([(0.1 if i % 2 else -0.1) + 7.0 + 0.5 * i - offset - slope * i for i in range(6)])
    assert found[0][2] == pytest.approx(np.hypot(0.3 * slope, np.sqrt((rest**2).sum() / 4)))
    downwards = _moved(given, {w: 7.0 - i for i, w in enumerate(widths)})
    assert [score for _, score, _ in downwards] == pytest.approx([2.0 + i for i in range(6)])
    assert [score for _, score, _ in _moved(given, {widths[0]: 3.0})] == pytest.approx([3.0 + i for i in range(6)])


def test_a_remembered_score_is_no_second_measurement() -> None:
    scored = trials(0.3)
    assert smooth(ROOMY, [*scored, *scored[:5]]) == smooth(ROOMY, scored)
    assert smooth(ROOMY, scored, {scored[0].widths: scored[0].score or 0.0}) == smooth(ROOMY, scored)
    assert smooth(ROOMY, scored, {scored[0].widths: -5.0}) != smooth(ROOMY, scored)


def test_the_shortlist_is_sorted_and_ties_keep_their_order() -> None:
    a, b, c, d = MEMBERS[:4]
    assert shortlist({a: 0.5, b: 0.9, c: 0.5, d: 0.1}, 3, ROOMY) == [b, a, c]


def test_uniform_widths_are_only_listed_where_there_is_no_challenger() -> None:
    a, b, c = MEMBERS[:3]
    leads = {a: 1.0, b: 2.0, c: 0.5}
    assert shortlist(leads, 3, ROOMY, [b]) == [a, c]
    assert shortlist(leads, 3, ROOMY, [a, b, c]) == [b, a, c]


def test_what_is_over_the_budget_is_not_on_the_shortlist() -> None:
    assert shortlist({ROOMY.space.full: 0.9, MEMBERS[0]: 0.5}, 3, ROOMY) == [MEMBERS[0]]


def test_the_median_trial_is_the_lower_of_two_and_ignores_failures() -> None:
    scores = [0.4, None, 0.1, 0.3, 0.2]
    found = [Trial(i, (i,), TrialState.FAILED if s is None else TrialState.COMPLETE, s) for i, s in enumerate(scores)]
    median = median_trial(found)
    assert median is not None
    assert median.score == 0.2
    assert median_trial(found[1:2]) is None


def test_the_chance_of_being_better_follows_the_truth() -> None:
    best, worst = (pick(MEMBERS, key=truth) for pick in (max, min))
    chances = probability_better(ROOMY, trials(0.1), {}, best, {"worst": worst, "itself": best})
    assert chances.keys() == {"worst"}
    assert chances["worst"] > 0.9
    assert probability_better(ROOMY, trials(0.1), {}, worst, {"best": best})["best"] == pytest.approx(
        1 - chances["worst"]
    )


def _losses(noise: float) -> tuple[float, float]:
    """Mean true scores of what the surest lead chooses and of the best mean; balanced widths are the best ones."""
    chosen: tuple[list[float], list[float]] = ([], [])
    for seed in range(30):
        rng = np.random.default_rng(seed)
        members = [tuple(map(int, row)) for row in WIDE.sample(24, rng)]
        uniform = WIDE.uniform()
        true = {w: -float(np.log(np.array(w) / uniform).std()) for w in [uniform, *members]}
        scored = [Trial(i, w, TrialState.COMPLETE, true[w] + noise * rng.normal()) for i, w in enumerate(true)]
        for found, baselines in zip(chosen, ([uniform], []), strict=True):
            (best,) = shortlist(sure_leads(WIDE, scored, baselines), 1, WIDE, [uniform])
            found.append(true[best])
    return float(np.mean(chosen[0])), float(np.mean(chosen[1]))


def test_an_answer_stays_near_uniform_where_scores_say_little() -> None:
    sure, likely = _losses(1.0)
    assert sure > 0.85 * likely  # both are below 0
    sure, likely = _losses(0.01)
    assert sure == pytest.approx(likely, abs=0.01)


def test_leads_are_over_the_best_baseline_and_means_without_one() -> None:
    scored = trials(0.1)
    means = {widths: mean for widths, (mean, _) in smooth(ROOMY, scored).items()}
    assert sure_leads(ROOMY, scored, [ROOMY.space.full]) == pytest.approx(means)
    weak, strong = sorted(MEMBERS[:2], key=means.__getitem__)
    leads = sure_leads(ROOMY, scored, [weak, strong])
    assert leads[strong] == pytest.approx(0.0, abs=1e-6)
    assert all(leads[widths] <= means[widths] - means[strong] for widths in MEMBERS)
    assert leads == sure_leads(ROOMY, scored, [strong])


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("known", [0.0, 1.0])
def test_a_score_that_comes_back_is_no_second_measurement(apart: bool, known: float) -> None:
    """Evaluators that read all data in a trial return a trial's score when it is scored once more."""
    rng = np.random.default_rng(1)
    scored = [
        Trial(i, w, TrialState.COMPLETE, 80.0 + rng.normal(), standard_error=known or None, paired=bool(known))
        for i, w in enumerate(MEMBERS)
    ]
    best = sorted(scored, key=lambda trial: -(trial.score or 0))[:8]
    again = {trial.widths: trial.score or 0.0 for trial in best}
    assert smooth(ROOMY, scored, again, apart=apart) == smooth(ROOMY, scored)


def test_a_re_score_is_at_most_as_noisy_as_its_trial_and_not_exact() -> None:
    rng = np.random.default_rng(1)
    scored = [
        Trial(i, w, TrialState.COMPLETE, 80.0 + rng.normal(), standard_error=1.0, paired=True)
        for i, w in enumerate(MEMBERS)
    ]
    lucky = {MEMBERS[0]: 84.0}
    mean, sd = smooth(ROOMY, scored, lucky)[MEMBERS[0]]
    assert mean < 83.0
    assert sd > 0.2
