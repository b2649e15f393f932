from __future__ import annotations

import math
from itertools import chain
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from autoprune.errors import EvaluationError
from autoprune.texts import ScoreScale
from autoprune.verdict.record import Comparison, FinalTraining, Verdict
from autoprune.verdict.statistics import better_uniform, judge, paired_comparison

PERCENT = ScoreScale(unit="%")
scores = st.integers(0, 10_000).map(lambda hundredths: hundredths / 100)


def compare(winner: list[float], rival: list[float], **options: float) -> Comparison:
    return paired_comparison(winner, rival, protocol="fine_tune", rival_name="uniform_all", **options)


def finals(arm: str, values: dict[int, float], protocol: str = "fine_tune") -> list[FinalTraining]:
    return [FinalTraining(arm, protocol, seed, 10, score, 1.0) for seed, score in values.items()]


TOLD = {"fine_tune": "fine-tuned", "scratch_e": "trained from scratch"}


def verdict(*trained: list[FinalTraining], protocols: tuple[str, ...] = ("fine_tune",), unit: str = "%") -> Verdict:
    told = {name: TOLD.get(name, name) for name in protocols}
    return judge([*chain(*trained)], protocols=told, budget_text="50 % of the FLOPs", scale=ScoreScale(unit=unit))


@given(st.lists(st.tuples(scores, scores), min_size=2, max_size=8), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_interval_is_scipys_paired_t_interval(pairs: list[tuple[float, float]], confidence: float) -> None:
    winner, rival = ([pair[side] for pair in pairs] for side in (0, 1))
    assume(len({round(w - r, 6) for w, r in pairs}) > 1)
    ours = compare(winner, rival, confidence=confidence)
    theirs = stats.ttest_rel(winner, rival).confidence_interval(confidence)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), rel=1e-9, abs=1e-9)


@given(st.lists(st.tuples(scores, scores), min_size=1, max_size=6))
def test_swapping_the_sides_mirrors_the_result(pairs: list[tuple[float, float]]) -> None:
    winner, rival = ([pair[side] for pair in pairs] for side in (0, 1))
    there, back = compare(winner, rival), compare(rival, winner)
    assert there.difference == pytest.approx(-back.difference, abs=1e-9)
    opposite = {"better": "worse", "worse": "better", "not distinguishable": "not distinguishable"}
    assert there.outcome == opposite[back.outcome]


@pytest.mark.parametrize(
    ("winner", "outcome"),
    [([91.0, 91.1, 90.9], "better"), ([89.0, 89.1, 88.9], "worse"), ([91.0, 89.0, 90.3], "not distinguishable")],
)
def test_outcome_is_the_side_of_zero_on_which_the_interval_lies(winner: list[float], outcome: str) -> None:
    assert compare(winner, [90.0, 90.0, 90.0]).outcome == outcome


@pytest.mark.parametrize("shift", [5.0, 0.1, 0.0, -3.0])
@pytest.mark.parametrize("rival", [[90.2], [3.7, 90.7], [90.2, 12.1, 0.3]])
def test_without_a_spread_nothing_is_distinguishable(rival: list[float], shift: float) -> None:
    found = compare([score + shift for score in rival], rival)  # the sums differ in their last bits only
    assert (found.low, found.high, found.outcome) == (-math.inf, math.inf, "not distinguishable")
    assert found.difference == pytest.approx(shift)


@pytest.mark.parametrize(("winner", "rival"), [([], []), ([1.0], [1.0, 2.0]), ([math.nan], [1.0])])
def test_scores_that_cannot_be_paired_are_refused(winner: list[float], rival: list[float]) -> None:
    with pytest.raises(EvaluationError, match="uniform_all need finite scores"):
        compare(winner, rival)


def test_the_rival_is_the_uniform_network_with_the_higher_mean() -> None:
    weak, strong = finals("uniform_all", {0: 99.0, 1: 80.0}), finals("uniform_inner", {0: 90.0, 1: 90.0})
    assert better_uniform(weak + strong, "fine_tune") == "uniform_inner"
    assert better_uniform(weak, "fine_tune") == "uniform_all"
    assert (
        better_uniform(finals("uniform_inner", {0: 1.0}) + finals("uniform_all", {0: 1.0}), "fine_tune")
        == "uniform_all"
    )
    with pytest.raises(EvaluationError, match="scratch_e"):
        better_uniform(weak, "scratch_e")


def test_the_first_protocol_decides_and_the_sentence_says_both() -> None:
    fine = finals("winner", {0: 91.0, 1: 91.3, 2: 90.9}), finals("uniform_all", {0: 90.0, 1: 90.1, 2: 90.1})
    scratch = (
        finals("winner", {0: 90.0, 1: 91.3, 2: 90.9}, "scratch_e"),
        finals("uniform_all", {0: 90.6, 1: 90.1, 2: 91.0}, "scratch_e"),
    )
    found = verdict(*fine, *scratch, protocols=("fine_tune", "scratch_e"))
    assert found.outcome == "better"
    assert found.sentence == (
        "At 50 % of the FLOPs the searched widths are better than uniform pruning (uniform_all): +1.00 points, "
        "95 % confidence interval +0.50 to +1.50 (fine-tuned, 3 seeds); "
        "trained from scratch they are not distinguishable (+0.17, -2.14 to +2.47)."
    )
    assert verdict(*fine, *scratch, protocols=("scratch_e", "fine_tune")).outcome == "not distinguishable"


def test_only_common_seeds_are_compared() -> None:
    found = verdict(finals("winner", {0: 91.0, 1: 91.5, 7: 0.0}), finals("uniform_all", {1: 90.5, 0: 90.1, 9: 99.0}))
    assert found.comparisons[0].seeds == 2
    assert found.comparisons[0].difference == pytest.approx(0.95)


def test_a_rival_without_common_seeds_is_no_rival() -> None:
    found = verdict(finals("winner", {0: 91.0}), finals("uniform_all", {0: 90.0}), finals("uniform_inner", {1: 99.0}))
    assert found.comparisons[0].rival == "uniform_all"
    assert "no interval possible (fine-tuned, 1 seed)" in found.sentence


def test_a_protocol_without_pairs_is_named_and_left_out() -> None:
    trained = finals("winner", {0: 0.91, 1: 0.92}), finals("uniform_inner", {0: 0.90, 1: 0.88})
    found = verdict(*trained, protocols=("rewind", "fine_tune"), unit="")
    assert [c.protocol for c in found.comparisons] == ["fine_tune"]
    assert "by: rewind" in found.sentence
    assert "points" not in found.sentence


@pytest.mark.parametrize("arm", ["winner", "uniform_all", "random_median"])
def test_one_arm_alone_gives_no_comparison_and_says_so(arm: str) -> None:
    found = verdict(finals(arm, {0: 91.0, 1: 91.2}))
    assert (found.outcome, found.comparisons) == ("not distinguishable", ())
    assert "could not be compared" in found.sentence


def test_a_winner_that_is_the_uniform_network_is_called_that() -> None:
    finals = [
        FinalTraining(arm, "fine_tune", seed, 1, 90.0, 1.0) for arm in ("winner", "uniform_all") for seed in (0, 1)
    ]
    verdict = judge(
        finals,
        protocols={"fine_tune": "fine-tuned"},
        budget_text="50 % of the FLOPs",
        scale=ScoreScale(unit="%"),
        identical=["uniform_all"],
    )
    assert verdict.sentence == (
        "At 50 % of the FLOPs the search chose the uniform network itself (uniform_all): there is nothing to compare."
    )
    assert verdict.outcome == "not distinguishable"


def test_scores_of_data_that_chose_the_winner_are_owned_up_to() -> None:
    finals = [
        FinalTraining(arm, "fine_tune", seed, 1, score + seed / 7, 1.0)
        for arm, score in (("winner", 95.0), ("uniform_all", 90.0))
        for seed in (0, 1, 2)
    ]
    seen, unseen = (
        judge(
            finals,
            protocols={"fine_tune": "fine-tuned"},
            budget_text="50 % of the FLOPs",
            scale=ScoreScale(unit="%"),
            unseen_data=flag,
        ).sentence
        for flag in (False, True)
    )
    assert "flatters" in seen
    assert "flatters" not in unseen


@pytest.mark.parametrize(
    ("unpruned", "told"),
    [
        (92.27, "Against the unpruned network the searched one loses 1.20 points (91.07 % after 92.27 %)."),
        (90.0, "Against the unpruned network the searched one gains 1.07 points (91.07 % after 90.00 %)."),
        (91.068, "Against the unpruned network the searched one neither loses nor gains (91.07 % after 91.07 %)."),
    ],
)
def test_the_sentence_says_what_pruning_costs(unpruned: float, told: str) -> None:
    trained = [*finals("winner", {0: 91.0, 1: 91.3, 2: 90.9}), *finals("uniform_all", {0: 90.0, 1: 90.1, 2: 90.1})]
    options: dict[str, Any] = {"protocols": {"fine_tune": "fine-tuned"}, "budget_text": "half", "scale": PERCENT}
    with_it, without = judge(trained, unpruned=unpruned, **options), judge(trained, **options)
    assert with_it.sentence == f"{without.sentence} {told}"
    assert with_it.comparisons == without.comparisons


def test_of_measures_that_count_down_more_is_a_loss() -> None:
    trained = [*finals("winner", {0: -0.5, 1: -0.7}), *finals("uniform_all", {0: -0.9, 1: -0.8})]
    scale = ScoreScale("loss", "nats", higher_is_better=False)
    found = judge(trained, protocols={"fine_tune": "fine-tuned"}, budget_text="half", scale=scale, unpruned=-0.4)
    assert found.sentence.endswith("the searched one loses 0.2 nats (0.6 nats after 0.4 nats).")
