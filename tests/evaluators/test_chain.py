"""Scores in rungs: what is evaluated when, what is reported to whom, and what settings are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import pytest

from autoprune.errors import ConfigError, RegistryError
from autoprune.evaluators.base import Evaluator
from autoprune.evaluators.chain import EvaluatorChain
from autoprune.evaluators.making import check_evaluator, counted, kind_of, make_evaluator, rungs_of, scale_of
from autoprune.space.groups import Widths
from autoprune.tasks.score import Score
from autoprune.testing.evaluators import InterruptingWatch, tiny_bench
from autoprune.training.watch import State, Stopped, Watch

SCRATCH = {"name": "scratch", "settings": {"epochs": 2}}


@final
class Step(Evaluator):
    """Trains for some epochs, and writes down when and with what it was asked."""

    def __init__(self, name: str, log: list[str], *, epochs: int = 0, score: float = 1.0) -> None:
        self.kind = "training" if epochs else "short"
        self._name, self._log, self._epochs, self._score = name, log, epochs, score

    def evaluate(self, widths: Widths, *, seed: int, full: bool = False, watch: Watch | None = None) -> Score:
        begun = 0 if watch is None else int((watch.restore() or {"epoch": 0})["epoch"])
        self._log.append(f"{self._name} from {begun}" + " fully" * full)
        for epoch in range(begun + 1, self._epochs + 1):
            if watch is not None:
                watch.epoch(epoch, self._epochs, lambda: 77.0, _state(epoch))
        return Score(self._score, 0.5, paired=True)


def _state(epoch: int) -> Callable[[], State]:
    return lambda: {"epoch": epoch}


@final
class Listening(Watch):
    """Writes down what is reported; stops at the report of this number."""

    def __init__(self, *, stop_at: int = -1, state: State | None = None) -> None:
        self.reports: list[tuple[float, float | None]] = []
        self._stop_at, self.state = stop_at, state

    def restore(self) -> State | None:
        return self.state

    def epoch(self, done: int, total: int, score: Callable[[], float] | None, state: Callable[[], State]) -> None:
        self.reports.append((round(done / total, 4), None if score is None else score()))
        self.state = state()
        if len(self.reports) == self._stop_at:
            raise Stopped


def chain(log: list[str]) -> EvaluatorChain:
    return EvaluatorChain(
        None,
        steps=[
            Step("proxy", log, score=1e9),
            Step("short", log, epochs=4, score=-3.0),
            Step("long", log, epochs=2, score=70.0),
        ],
        keep=[0.5, 0.25],
    )


def test_each_step_but_the_last_reports_its_score_and_trainings_inside_report_none() -> None:
    watch, log = Listening(), list[str]()
    assert chain(log).evaluate((4,), seed=0, watch=watch) == Score(70.0, 0.5, paired=True)
    assert log == ["proxy from 0", "short from 0", "long from 0"]
    assert [report for report in watch.reports if report[1] is not None] == [(0.3333, 1e9), (0.6667, -3.0)]
    assert [share for share, score in watch.reports if score is None] == [0.4167, 0.5, 0.5833, 0.8333]
    assert [share for share, _ in watch.reports] == sorted({share for share, _ in watch.reports})


@pytest.mark.parametrize("stop_at", range(1, 7))
def test_an_attempt_that_was_interrupted_anywhere_repeats_nothing(stop_at: int) -> None:
    first, log = Listening(stop_at=stop_at), list[str]()
    with pytest.raises(Stopped):
        chain(log).evaluate((4,), seed=0, watch=first)
    second = Listening(state=first.state)
    assert float(chain(log).evaluate((4,), seed=0, watch=second)) == 70.0
    whole = Listening()
    chain([]).evaluate((4,), seed=0, watch=whole)
    assert first.reports + second.reports == whole.reports


def test_full_scores_and_those_nobody_watches_are_of_the_last_step_alone() -> None:
    log, watch = list[str](), Listening()
    assert float(chain(log).evaluate((4,), seed=0, full=True)) == 70.0
    assert float(chain(log).evaluate((4,), seed=0)) == 70.0
    assert float(chain(log).evaluate((4,), seed=0, full=True, watch=watch)) == 70.0
    assert log == ["long from 0 fully", "long from 0", "long from 0 fully"]
    assert watch.reports == [(0.5, 77.0), (1.0, 77.0)], "the last step's own"


def test_a_step_that_follows_the_best_candidates_is_told_of_them() -> None:
    told: list[object] = []

    @final
    class Following(Evaluator):
        follows = 2

        def evaluate(self, widths: Widths, *, seed: int, full: bool = False, **about: Any) -> float:
            told.append(about)
            return 1.0

    chained = EvaluatorChain(None, steps=[Following(), Step("last", [])])
    assert chained.follows == 2
    chained.evaluate((4,), seed=0, watch=Listening(), incumbents=[(8,), (6,)])
    assert told == [{"incumbents": [(8,), (6,)]}]


def test_a_real_chain_scores_as_its_last_step_and_goes_on_where_it_was_interrupted() -> None:
    factory = tiny_bench()
    chained = make_evaluator("chain", factory, {"steps": ["zero_cost", SCRATCH, SCRATCH]})
    alone = make_evaluator("scratch", factory, {"epochs": 2}).evaluate(factory.space.smallest, seed=3)
    assert chained.evaluate(factory.space.smallest, seed=3, watch=Listening()) == alone
    watch = InterruptingWatch()
    with pytest.raises(Stopped):
        chained.evaluate(factory.space.smallest, seed=3, watch=watch)
    assert chained.evaluate(factory.space.smallest, seed=3, watch=watch) == alone
    assert watch.epochs == sorted(set(watch.epochs))


def test_kind_scale_and_rungs_are_told_before_anything_is_built() -> None:
    short: dict[str, Any] = {"steps": ["inherited", "zero_cost"]}
    long: dict[str, Any] = {"steps": ["zero_cost", "inherited", SCRATCH], "keep": [0.5, 1]}
    assert (kind_of("chain", short), kind_of("chain", long)) == ("short", "training")
    shown = scale_of("chain", short)
    assert shown is not None
    assert shown.name == "zero-cost proxy"
    assert scale_of("chain", long) is None
    assert counted("chain", {"steps": ["scratch", {"name": "chain", "settings": short}]}).name == "zero_cost"
    found = rungs_of("chain", long)
    assert found is not None
    assert (found.steps, found.keep, found.shares) == (("zero_cost", "inherited", "scratch"), (0.5, 1), (1 / 3, 2 / 3))
    assert [found.place(share) for share in (1 / 3, 0.5, 2 / 3, 1.0)] == [0, None, 1, None]
    assert rungs_of("inherited", {}) is None
    assert make_evaluator("chain", tiny_bench(), short).scale == shown


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "needs the setting 'steps': a list of evaluators, the cheapest first"),
        ({"steps": []}, "steps must be a list of at least two evaluators, got 0"),
        ({"steps": ["inherited"]}, "at least two evaluators, got 1; a single one is named as the evaluator itself"),
        (
            {"steps": "inherited"},
            "steps must be a list of at least two evaluators, the cheapest first, got 'inherited'",
        ),
        ({"steps": {"name": "inherited"}}, "steps must be a list"),
        (
            {"steps": ["inherited", SCRATCH], "keep": 0.5},
            r"keep must be a list of shares, .* such as \[0.25\], got 0.5",
        ),
        ({"steps": ["inherited", SCRATCH], "keep": "0.5"}, "keep must be a list of shares"),
        ({"steps": ["inherited", SCRATCH], "keep": []}, "one share for each step but the last, 1 for 2 steps, got 0"),
        ({"steps": ["inherited", SCRATCH], "keep": [0.5, 0.5]}, r"1 for 2 steps, got 2: \[0.5, 0.5\]"),
        (
            {"steps": ["inherited", SCRATCH], "keep": [0]},
            r"keep\[0\] must be above 0 and at most 1, .*inherited, got 0",
        ),
        ({"steps": ["inherited", SCRATCH], "keep": [1.5]}, r"keep\[0\] must be above 0 and at most 1"),
        ({"steps": ["inherited", SCRATCH], "keep": [float("nan")]}, r"keep\[0\] must be above 0"),
        ({"steps": ["inherited", SCRATCH], "keep": [True]}, r"keep\[0\] must be above 0 .* got True"),
        ({"steps": ["inherited", SCRATCH], "keep": ["a third"]}, r"keep\[0\] must be above 0 .* got 'a third'"),
        ({"steps": ["inherited", SCRATCH], "keeps": [0.5]}, "has no setting 'keeps'.*Did you mean 'keep'"),
        ({"steps": ["inherited", 3]}, r"steps\[1\]: must hold keys .*, or be a plain name, got 3"),
        (
            {"steps": [{"name": "chain", "settings": {"steps": ["zero_cost", "inherited"]}}, SCRATCH]},
            r"steps\[0\] is 'chain', which has steps of its own; write them into this list in its place",
        ),
        (
            {"steps": ["zero_cost", {"name": "chain", "settings": {"steps": ["inherited", SCRATCH]}}]},
            r"steps\[1\] is 'chain', which has steps of its own",
        ),
    ],
)
def test_settings_that_make_no_rungs_are_refused_before_anything_is_built(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        check_evaluator("chain", settings)


def test_an_unknown_step_is_told_with_its_place() -> None:
    with pytest.raises(RegistryError, match=r"evaluator\.settings\.steps\[1\]: unknown evaluator 'inherted'.*Did you"):
        check_evaluator("chain", {"steps": ["zero_cost", "inherted"]})
    inner = {"name": "chain", "settings": {"steps": ["zero_cost"]}}
    with pytest.raises(ConfigError, match=r"evaluator\.settings\.steps\[1\]: evaluator 'chain': steps must be a list"):
        check_evaluator("chain", {"steps": ["zero_cost", inner]})
