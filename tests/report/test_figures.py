"""Controllers that walk into the budget from above score networks that can be no winners; figures tell them apart."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate

import pytest
from example_runs import example_run

from autoprune.controllers.base import Trial, TrialState
from autoprune.report import figures
from autoprune.report.dots import MANY
from autoprune.report.words import keeps
from autoprune.verdict.record import RunRecord

FIRST = 6
"""Number of the first trial of the search."""


def walked(steps: int = 12, searched: int = 40) -> RunRecord:
    """Its search begins at the full network, which scores best, and is inside the budget after these steps."""
    record = example_run(searched=searched)
    full = record.full_costs["flops"]

    def step(trial: Trial) -> Trial:
        place = trial.number - FIRST
        if not 0 <= place < steps or trial.score is None:
            return trial
        return replace(trial, costs={"flops": full * (1 - 0.5 * place / steps)}, score=99.0 - place)

    return replace(record, trials=tuple(map(step, record.trials)))


def complete(record: RunRecord) -> list[Trial]:
    return [t for t in record.trials[FIRST:] if t.state is TrialState.COMPLETE]


@pytest.mark.parametrize("figure", [figures.tradeoff, figures.search_progress])
def test_what_is_outside_the_budget_is_no_best_and_a_series_of_its_own(
    figure: object, heights: dict[str, list[float]]
) -> None:
    record = walked()
    page = figure(record)  # type: ignore[operator]
    limit = record.budget[0]["upper"]
    inside = [t.score for t in complete(record) if t.costs["flops"] <= limit]
    outside = [t.score for t in complete(record) if t.costs["flops"] > limit]
    assert len(outside) >= 8
    assert min(outside) > max(inside)  # type: ignore[type-var]
    assert sorted(heights["outside the budget"]) == sorted(outside)  # type: ignore[type-var]
    assert sorted(heights["search"]) == sorted(inside)  # type: ignore[type-var]
    assert "outside the budget" in page
    if figure is figures.search_progress:
        assert heights["best so far"] == list(accumulate(inside, max))  # type: ignore[arg-type]


def test_a_run_whose_trials_keep_the_budget_has_no_such_series(heights: dict[str, list[float]]) -> None:
    record = example_run()
    figures.tradeoff(record)
    figures.search_progress(record)
    assert "outside the budget" not in heights
    assert "best so far" in heights


def test_a_search_that_has_not_come_into_the_budget_has_no_best(heights: dict[str, list[float]]) -> None:
    figures.search_progress(walked(steps=10_000))
    assert "best so far" not in heights
    assert "search" not in heights


def test_thousands_outside_the_budget_are_shown_too(heights: dict[str, list[float]]) -> None:
    page = figures.tradeoff(walked(steps=2_000, searched=2_000))
    assert page.count("h.01") > MANY


@pytest.mark.parametrize(
    ("costs", "kept"),
    [
        ({"flops": 50.0, "params": 10.0}, True),
        ({"flops": 50.1, "params": 5.0}, False),
        ({"flops": 44.9, "params": 5.0}, False),
        ({"flops": 50.0, "params": 10.1}, False),
        ({"flops": 50.0}, True),
    ],
)
def test_every_limit_counts_with_both_its_ends(costs: dict[str, float], kept: bool) -> None:
    budget = ({"metric": "flops", "upper": 50.0, "lower": 45.0}, {"metric": "params", "upper": 10.0})
    assert keeps(budget, costs) is kept
