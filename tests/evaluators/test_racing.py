from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from autoprune.config.training import Recipe
from autoprune.errors import ConfigError
from autoprune.evaluators.base import Evaluator
from autoprune.evaluators.candidates import CandidateFactory
from autoprune.evaluators.making import make_evaluator
from autoprune.evaluators.paired import error_of_difference, probability_as_low
from autoprune.evaluators.racing import blocks
from autoprune.evaluators.resident import ResidentScorer
from autoprune.measures.base import Values, make_measure
from autoprune.measures.loss import Loss
from autoprune.measures.of_logits import OfLogits
from autoprune.space.groups import Widths
from autoprune.tasks.callable import CallableTask
from autoprune.tasks.classification import ClassificationTask
from autoprune.tasks.score import Score
from autoprune.testing.evaluators import tiny_bench, tiny_splits


@pytest.fixture(scope="module")
def factory() -> CandidateFactory:
    return tiny_bench()


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many examples each call has scored."""
    counts: list[int] = []
    usual = ResidentScorer.values

    def values(self: ResidentScorer, network: nn.Module, widths: Widths, **where: Any) -> Values:
        found = usual(self, network, widths, **where)
        counts.append(len(found))
        return found

    monkeypatch.setattr(ResidentScorer, "values", values)
    return counts


def _ask(evaluator: Evaluator, widths: Widths, *best: Widths) -> Score:
    score = evaluator.evaluate(widths, seed=0, incumbents=best)  # type: ignore[call-arg]
    assert isinstance(score, Score)
    return score


@pytest.mark.parametrize(
    ("examples", "first", "growth", "expected"),
    [(1000, 128, 2.0, (128, 256, 512)), (128, 128, 2.0, ()), (10, 3, 1.2, (3, 4, 5, 6, 7, 8)), (1, 1, 2.0, ())],
)
def test_blocks_grow_and_leave_something_to_score(
    examples: int, first: int, growth: float, expected: tuple[int, ...]
) -> None:
    assert blocks(examples, first, growth) == expected


def test_a_clearly_worse_candidate_stops_and_its_score_is_near_the_whole_one(
    factory: CandidateFactory, counted: list[int]
) -> None:
    space = factory.space
    racing = make_evaluator("racing", factory, {"first": 32, "incumbents": 1})
    best = _ask(racing, space.full)
    counted.clear()
    stopped = _ask(racing, space.smallest, space.full)
    assert sum(counted) < 128
    whole = float(make_evaluator("inherited", factory, {}).evaluate(space.smallest, seed=0))
    assert stopped.paired
    assert stopped.standard_error is not None
    assert float(stopped) == pytest.approx(whole, abs=4 * stopped.standard_error)
    assert float(stopped) < float(best)
    assert best.standard_error is not None
    assert stopped.standard_error > best.standard_error, "its estimate is off by what the incumbent is off by, too"


def test_who_is_not_clearly_worse_is_scored_as_by_inherited(factory: CandidateFactory, counted: list[int]) -> None:
    space = factory.space
    racing, inherited = (make_evaluator(name, factory, {}) for name in ("racing", "inherited"))
    half = space.uniform(0.5)
    assert float(_ask(racing, space.full, half, space.smallest)) == float(inherited.evaluate(space.full, seed=0))
    full = racing.evaluate(space.smallest, seed=0, full=True)
    assert full == inherited.evaluate(space.smallest, seed=0, full=True)


def test_nobody_stops_before_there_are_enough_incumbents(factory: CandidateFactory, counted: list[int]) -> None:
    racing = make_evaluator("racing", factory, {"first": 32, "incumbents": 3})
    _ask(racing, factory.space.smallest, factory.space.full, factory.space.uniform(0.5))
    assert counted[-1] + counted[-2] + counted[-3] >= 128


def test_the_outcome_does_not_depend_on_what_a_worker_has_scored_before(factory: CandidateFactory) -> None:
    space = factory.space
    half, settings = space.uniform(0.5), {"first": 32, "incumbents": 1}
    old = make_evaluator("racing", factory, settings)
    for widths in (space.full, half, space.smallest):
        _ask(old, widths)
    new = make_evaluator("racing", factory, settings)
    for widths in (half, space.smallest):
        assert _ask(old, widths, space.full) == _ask(new, widths, space.full)


def test_racing_by_a_loss_stops_too(factory: CandidateFactory, counted: list[int]) -> None:
    recipe = Recipe(epochs=3, lr=0.1, batch_size=32, weight_decay=5e-4)
    task = ClassificationTask(tiny_splits(), recipe, device=torch.device("cpu"), measure=Loss())
    racing = make_evaluator("racing", replace(factory, task=task), {"first": 32, "incumbents": 1})
    whole = _ask(racing, factory.space.full)
    counted.clear()
    stopped = _ask(racing, factory.space.smallest, factory.space.full)
    assert sum(counted) < 128
    assert float(stopped) < float(whole) < 0


def test_an_equal_candidate_is_stopped_no_more_often_than_stated() -> None:
    """2,000 races between networks of equal quality, tested at each look as the evaluator does."""
    rng, level, wrong = np.random.default_rng(0), 0.05, 0
    tests = blocks(512, 32, 2.0)
    for _ in range(2000):
        ours, theirs = rng.random((2, 512)) < 0.8
        wrong += any(probability_as_low(ours[:n], theirs[:n]) <= level / len(tests) for n in tests)
    assert wrong / 2000 < level


def test_the_tests_are_those_of_the_textbook() -> None:
    rng = np.random.default_rng(1)
    ours, theirs = rng.random((2, 200)) < np.array([[0.6], [0.8]])
    only = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    exact = stats.binomtest(only[0], sum(only), 0.5, alternative="less").pvalue
    assert probability_as_low(ours, theirs) == pytest.approx(exact)
    x, y = rng.normal(size=(2, 50))
    assert probability_as_low(x, y) == pytest.approx(stats.ttest_rel(x, y, alternative="less").pvalue)
    assert error_of_difference(x, y) == pytest.approx(float(stats.sem(x - y)))


def test_the_error_of_a_paired_difference_is_what_it_varies_by() -> None:
    """Over samples of networks that answer 90 % alike; unpaired errors are twice as large."""
    rng = np.random.default_rng(2)
    differences, errors = [], []
    for _ in range(400):
        theirs = rng.random(1000) < 0.7
        ours = np.where(rng.random(1000) < 0.1, ~theirs, theirs)
        differences.append(100.0 * (ours.mean() - theirs.mean()))
        errors.append(error_of_difference(ours, theirs))
    assert np.mean(errors) == pytest.approx(np.std(differences), rel=0.1)
    assert error_of_difference(theirs, theirs) > 0


def test_differences_of_paired_scores_are_as_far_off_as_their_errors_say() -> None:
    """Two candidates alike, a uniform one and the base network, over samples of examples.

    Errors beside the base network say at least by how much the lead of one over uniform varies; what the difference to
    a candidate like it would say is far less.
    """
    rng = np.random.default_rng(3)
    leads, said = [], []
    for _ in range(300):
        base = rng.random(1000) < 0.8
        uniform, one = (np.where(rng.random(1000) < 0.15, ~base, base) for _ in range(2))
        other = np.where(rng.random(1000) < 0.01, ~one, one)
        leads.append(100.0 * (other.mean() - uniform.mean()))
        said.append(np.hypot(error_of_difference(other, base), error_of_difference(uniform, base)))
    assert 0.95 * np.std(leads) < np.mean(said) < 1.3 * np.std(leads)


def test_a_measure_of_logits_is_a_mean_where_the_measure_in_it_is() -> None:
    assert OfLogits(make_measure("accuracy")).is_mean
    assert not OfLogits(make_measure("perplexity")).is_mean


def test_a_paired_score_has_the_error_of_its_difference(factory: CandidateFactory) -> None:
    space, plain = factory.space, make_evaluator("inherited", factory, {"keep_examples": True})
    paired = make_evaluator("inherited", factory, {"paired": True})
    smallest = plain.evaluate(space.smallest, seed=0)
    assert isinstance(smallest, Score)
    assert smallest.examples is not None
    base = factory.task.scored(factory.model, examples=True).examples
    assert base is not None
    found = paired.evaluate(space.smallest, seed=0)
    assert isinstance(found, Score)
    expected = error_of_difference(smallest.examples, base)
    assert (float(found), found.paired, found.standard_error) == (float(smallest), True, pytest.approx(expected))
    assert not plain.evaluate(space.smallest, seed=0).paired  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"first": 0}, "first must be at least 1"),
        ({"growth": 1.0}, "growth must be above 1 and below 1000, got 1.0"),
        ({"confidence": 95}, "confidence must be above 0 and below 1, got 95"),
        ({"incumbents": 0}, "incumbents must be at least 1"),
        ({"incumbents": 9}, "incumbents must be at most 8, got 9"),
        ({"confidence": "high"}, "confidence must be above 0"),
    ],
)
def test_settings_out_of_range_are_refused(factory: CandidateFactory, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"evaluator 'racing': {message}"):
        make_evaluator("racing", factory, settings)


@pytest.mark.parametrize(("name", "settings"), [("racing", {}), ("inherited", {"paired": True})])
def test_a_score_that_is_no_mean_over_examples_is_refused(
    factory: CandidateFactory, name: str, settings: dict[str, Any]
) -> None:
    task = CallableTask(lambda model: 1.0, device=torch.device("cpu"))
    with pytest.raises(ConfigError, match="no mean over examples"):
        make_evaluator(name, replace(factory, task=task), settings)
