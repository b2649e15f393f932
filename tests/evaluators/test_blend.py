"""Blended scores: against numpy, what their noise is, what trains inside, and what settings are refused."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, final

import numpy as np
import pytest

from autoprune.errors import ConfigError, EvaluationError, RegistryError
from autoprune.evaluators.artefact import prepared
from autoprune.evaluators.base import Evaluator
from autoprune.evaluators.blend import Blend
from autoprune.evaluators.making import check_evaluator, kind_of, make_evaluator, prepares_something, scale_of
from autoprune.space.groups import Widths
from autoprune.tasks.score import Score
from autoprune.testing.evaluators import InterruptingWatch, tiny_bench
from autoprune.training.watch import State, Stopped, Watch

DRAWN = ((2, 3), (8, 12), (4, 6), (5, 2))
PARTS: list[Any] = [{"name": "inherited", "settings": {"validation_limit": 64}}, "zero_cost"]


@final
class Told(Evaluator):
    """Says what a function of the widths says."""

    def __init__(self, score: Callable[[Widths], float | Score], *, follows: int = 0) -> None:
        self._score, self.follows, self.asked = score, follows, list[Any]()

    def evaluate(
        self, widths: Widths, *, seed: int, full: bool = False, watch: Watch | None = None, **about: Any
    ) -> float | Score:
        self.asked.append((full, about))
        return self._score(widths)


def blend(folder: Path, *scores: Callable[[Widths], float | Score], drawn: Any = DRAWN, **settings: Any) -> Blend:
    """One that is prepared and loaded."""
    folder.mkdir(exist_ok=True)
    made = Blend(replace(tiny_bench(), drawn=drawn), parts=[Told(score) for score in scores], **settings)
    made.prepare(folder, seed=0)
    made.load(folder)
    return made


def first(widths: Widths) -> float:
    return 70.0 + widths[0] * widths[1] / 4


def second(widths: Widths) -> float:
    return -1e4 * math.log(widths[0])


@pytest.mark.parametrize("weights", [None, [1, 1], [3.0, 1.0]])
def test_a_score_is_the_weighted_mean_of_standardised_ones(tmp_path: Path, weights: list[float] | None) -> None:
    drawn = np.array([[first(widths), second(widths)] for widths in DRAWN])
    expected = (np.array([first((7, 7)), second((7, 7))]) - drawn.mean(axis=0)) / drawn.std(axis=0)
    found = blend(tmp_path, first, second, weights=weights).evaluate((7, 7), seed=0)
    assert found.value == pytest.approx(np.average(expected, weights=weights))
    assert (found.standard_error, found.paired) == (None, False)


def test_the_unit_and_zero_of_a_part_change_nothing(tmp_path: Path) -> None:
    one = blend(tmp_path / "plain", first, second)
    other = blend(tmp_path / "turned", lambda widths: 1e-6 * first(widths) - 5, second)
    for widths in (*DRAWN, (7, 7)):
        assert float(one.evaluate(widths, seed=0)) == pytest.approx(float(other.evaluate(widths, seed=0)))


def test_errors_count_in_the_same_units_and_are_known_where_all_are(tmp_path: Path) -> None:
    def paired(widths: Widths) -> Score:
        return Score(first(widths), 2.0, paired=True)

    def other(widths: Widths) -> Score:
        return Score(second(widths), 300.0, paired=True)

    def unpaired(widths: Widths) -> Score:
        return Score(second(widths), 300.0)

    deviation = np.std([first(widths) for widths in DRAWN]), np.std([second(widths) for widths in DRAWN])
    for part, is_paired in ((other, True), (unpaired, False)):
        found = blend(tmp_path / f"{is_paired}", paired, part, weights=[1, 3]).evaluate((4, 4), seed=0)
        assert found.standard_error == pytest.approx(math.hypot(0.25 * 2 / deviation[0], 0.75 * 300 / deviation[1]))
        assert found.paired is is_paired
    assert blend(tmp_path / "plain", paired, second).evaluate((4, 4), seed=0).standard_error is None


def test_noise_alone_does_not_decide(tmp_path: Path) -> None:
    """Of four networks one has one example more right than the others, where a score is known to three points."""

    def barely(widths: Widths) -> Score:
        return Score(50.0 if widths == (7, 7) else 10.0 + (widths == DRAWN[0]), 3.0)

    def at_chance(widths: Widths) -> Score:
        return Score(50.0 if widths == (7, 7) else 10.0, 3.0)

    others = [second(widths) for widths in DRAWN]
    rest = (second((7, 7)) - np.mean(others)) / np.std(others)
    for part, mean in ((barely, 10.25), (at_chance, 10.0)):
        found = blend(tmp_path / part.__name__, part, second).evaluate((7, 7), seed=0)
        assert found.value == pytest.approx(((50.0 - mean) / 3.0 + rest) / 2)


def test_scores_on_all_data_have_scales_of_their_own(tmp_path: Path) -> None:
    @final
    class Refitted(Evaluator):
        def evaluate(self, widths: Widths, *, seed: int, full: bool = False, watch: Watch | None = None) -> float:
            return 500.0 + 7.0 * first(widths) if full else first(widths)

    made = Blend(replace(tiny_bench(), drawn=DRAWN), parts=[Refitted(), Told(second)])
    made.prepare(tmp_path, seed=0)
    made.load(tmp_path)
    for widths in (*DRAWN, (7, 7)):
        part, whole = (float(made.evaluate(widths, seed=0, full=full)) for full in (False, True))
        assert part == pytest.approx(whole)


def test_a_constant_part_claims_no_noise(tmp_path: Path) -> None:
    made = blend(tmp_path / "exact", lambda widths: Score(1.0, 0.0, paired=True), second)
    assert made.evaluate((4, 4), seed=0).standard_error is None
    other = blend(tmp_path / "plain", lambda widths: 1.0, lambda widths: Score(second(widths), 300.0, paired=True))
    assert other.evaluate((4, 4), seed=0).paired


@pytest.mark.parametrize("size", [1e-200, 1e200, 1.0])
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_no_size_of_scores_is_taken_for_none(tmp_path: Path, size: float, offset: float) -> None:
    made = blend(tmp_path / "sized", lambda widths: size * (offset + first(widths) / 100), second)
    plain = blend(tmp_path / "plain", first, second)
    found, expected = (float(one.evaluate((7, 7), seed=0)) for one in (made, plain))
    assert found == pytest.approx(expected, rel=1e-5)


def test_parts_that_tell_nothing_apart_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"same score to all of 4 .*; choose parts that tell them apart"):
        blend(tmp_path / "four", lambda widths: 1.0, lambda widths: 2.0)
    alone = blend(tmp_path / "one", first, second, drawn=((4, 4),) * 3)
    assert float(alone.evaluate((4, 4), seed=0)) == 0.0, "a budget that holds one network"


def test_a_preparation_that_was_killed_goes_on(tmp_path: Path) -> None:
    asked: list[Widths] = []

    def dying(widths: Widths) -> float:
        asked.append(widths)
        if len(asked) == 5:  # each network is scored twice, the second time on all data
            raise KeyboardInterrupt
        return first(widths)

    with pytest.raises(KeyboardInterrupt):
        blend(tmp_path / "killed", dying, second)
    whole = blend(tmp_path / "killed", dying, second)
    a, b, c, d = DRAWN
    assert asked == [a, a, b, b, c, c, c, d, d]
    assert whole.evaluate((7, 7), seed=0) == blend(tmp_path / "whole", first, second).evaluate((7, 7), seed=0)


def test_a_part_that_gives_all_the_same_changes_nothing(tmp_path: Path) -> None:
    made = blend(tmp_path, first, lambda widths: 0.1 + 0.2)
    deviation = np.std([first(widths) for widths in DRAWN])
    difference = float(made.evaluate((8, 12), seed=0)) - float(made.evaluate((2, 3), seed=0))
    assert difference == pytest.approx((first((8, 12)) - first((2, 3))) / deviation / 2)


def test_networks_that_cannot_be_scored_are_left_out_of_the_scales_while_three_can(tmp_path: Path) -> None:
    def broken(fail: int) -> Callable[[Widths], float]:
        def score(widths: Widths) -> float:
            if widths in DRAWN[:fail]:
                raise ValueError("its outputs are nan")
            return first(widths)

        return score

    blend(tmp_path, broken(1), second)
    kept = json.loads((tmp_path / "scales.json").read_text())["part"]
    assert kept["means"] == pytest.approx([np.mean([f(w) for w in DRAWN[1:]]) for f in (first, second)])
    with pytest.raises(EvaluationError, match=r"of 4 networks .*, 2 could be scored, and 3 have to be: its outputs"):
        blend(tmp_path / "more", broken(2), second)


def test_without_a_budget_members_of_the_space_are_drawn(tmp_path: Path) -> None:
    asked = Told(first)
    made = Blend(tiny_bench(), parts=[asked, Told(second)])
    made.prepare(tmp_path, seed=0)
    assert len(asked.asked) == 20, "ten on a part of the data, ten on all"


def test_scores_need_scales(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="has no scales yet: call prepare and load"):
        Blend(tiny_bench(), parts=[Told(first), Told(second)]).evaluate((4, 4), seed=0)


def test_parts_are_told_what_the_whole_is_told(tmp_path: Path) -> None:
    parts = [Told(first, follows=1), Told(second)]
    made = Blend(replace(tiny_bench(), drawn=DRAWN), parts=parts)
    made.prepare(tmp_path, seed=0)
    made.load(tmp_path)
    assert made.follows == 1
    made.evaluate((4, 4), seed=0, full=True, incumbents=[(8, 8), (6, 6)])
    assert [part.asked[-1] for part in parts] == [(True, {"incumbents": ((8, 8),)}), (True, {})]


@final
class Training(Evaluator):
    """Reports a score after the first of two epochs."""

    kind = "training"

    def evaluate(self, widths: Widths, *, seed: int, full: bool = False, watch: Watch | None = None) -> float:
        if watch is not None:
            watch.epoch(1, 2, lambda: first(widths) - 1, lambda: {"epoch": 1})
        return first(widths)


def test_scores_on_the_way_of_a_training_count_beside_the_other_parts(tmp_path: Path) -> None:
    @final
    class Listening(Watch):
        def __init__(self) -> None:
            self.scores = list[float]()

        def restore(self) -> State | None:
            return None

        def epoch(self, done: int, total: int, score: Callable[[], float] | None, state: Callable[[], State]) -> None:
            assert score is not None
            self.scores.append(score())

    made = Blend(replace(tiny_bench(), drawn=DRAWN), parts=[Training(), Told(second)])
    made.prepare(tmp_path, seed=0)
    made.load(tmp_path)
    watch = Listening()
    end = made.evaluate((4, 4), seed=0, watch=watch)
    assert float(end) - watch.scores[0] == pytest.approx(0.5 / np.std([first(widths) for widths in DRAWN]))


def test_a_real_blend_is_made_of_its_parts_and_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    settings = {"parts": [{"name": "scratch", "settings": {"epochs": 2}}, *PARTS]}
    factory = tiny_bench()
    made = make_evaluator("blend", factory, settings)
    folder = prepared(made, tmp_path, seed=3)
    made.load(folder)
    kept = json.loads((folder / "scales.json").read_text())["part"]
    names = [(part, {}) if isinstance(part, str) else (part["name"], part["settings"]) for part in settings["parts"]]
    widths = factory.space.uniform(0.5)
    scores = [float(make_evaluator(name, factory, given).evaluate(widths, seed=5)) for name, given in names]
    expected = np.mean((np.array(scores) - kept["means"]) / kept["deviations"])
    whole = made.evaluate(widths, seed=5)
    assert float(whole) == pytest.approx(expected)
    watch = InterruptingWatch()
    with pytest.raises(Stopped):
        made.evaluate(widths, seed=5, watch=watch)
    assert made.evaluate(widths, seed=5, watch=watch) == whole


def test_a_part_that_prepares_something_is_loaded_when_scales_are_made(tmp_path: Path) -> None:
    factory, supernet = tiny_bench(), {"name": "supernet", "settings": {"epochs": 1, "drawn": 1}}
    made = make_evaluator("blend", factory, {"parts": [supernet, "zero_cost"]})
    made.load(prepared(made, tmp_path, seed=0))
    assert math.isfinite(float(made.evaluate(factory.space.uniform(0.5), seed=0)))


def test_the_last_step_of_a_chain_may_be_one(tmp_path: Path) -> None:
    factory, inside = tiny_bench(), {"name": "blend", "settings": {"parts": PARTS}}
    chain = make_evaluator("chain", factory, {"steps": ["zero_cost", inside]})
    alone = make_evaluator("blend", factory, {"parts": PARTS})
    scores = list[float]()
    for number, made in enumerate((chain, alone)):
        (tmp_path / str(number)).mkdir()
        made.load(prepared(made, tmp_path / str(number), seed=0))
        scores.append(float(made.evaluate(factory.space.uniform(0.5), seed=0)))
    assert scores[0] == scores[1]
    scale = scale_of("chain", {"steps": ["zero_cost", inside]})
    assert scale is not None
    assert scale.name == "blend of scores"


def test_what_it_is_follows_from_its_parts() -> None:
    assert kind_of("blend", {"parts": PARTS}) == "short"
    assert kind_of("blend", {"parts": ["scratch", "zero_cost"]}) == "training"
    assert prepares_something("blend", {"parts": PARTS})
    scale = scale_of("blend", {"parts": PARTS})
    assert scale is not None
    assert scale.name == "blend of scores"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"parts": "inherited"}, "parts must be a list of at least two evaluators, got 'inherited'"),
        (
            {"parts": None},
            r"settings\.parts: must hold keys \(name, settings\), or be a plain name, got None",
        ),
        ({"parts": ["inherited"]}, "at least two evaluators, got 1; a single one is named as the evaluator itself"),
        ({"parts": []}, "at least two evaluators, got 0"),
        ({"parts": ["scratch", "short_training"]}, "at most one of its parts may train, got 2; leave one of them"),
        (
            {"parts": ["zero_cost", {"name": "chain", "settings": {"steps": PARTS}}]},
            r"parts\[1\] is 'chain', .* the last step",
        ),
        ({"parts": ["inherited", "zero_kost"]}, r"evaluator\.settings\.parts\[1\]: unknown evaluator 'zero_kost'"),
        *(
            ({"parts": PARTS, "weights": weights}, r"weights must be a list .* each of the 2 parts, got ")
            for weights in ([1], [1, -1], [0, 1], [1, True], [1, "2"], 3, "ab", {"a": 1}, [1, math.nan], [1, math.inf])
        ),
    ],
)
def test_bad_settings_are_refused_before_anything_is_built(settings: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, RegistryError), match=message):
        check_evaluator("blend", settings)


def test_a_job_needs_its_parts() -> None:
    with pytest.raises(ConfigError, match="parts"):
        check_evaluator("blend", {})
