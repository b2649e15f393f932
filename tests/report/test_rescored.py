"""Scores of trials and scores on all validation data are two things: no figure and no column holds both."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from example_runs import example_run

from autoprune.report import figures
from autoprune.report.facts import collect
from autoprune.report.family import family_notes
from autoprune.report.html import write_html
from autoprune.report.rescored import rescored
from autoprune.verdict.record import CurvePoint, RunRecord

TOLD = {"winner": 98.125, "uniform_all": 97.0, "uniform_inner": 97.5}
CURVE = {0.25: 95.25, 0.75: 98.5}


def rescored_run(*, higher: bool = True) -> RunRecord:
    """Its networks got other scores after the search than as trials, by 25 points and more."""
    record = example_run(better=higher)
    sign, full = 1 if higher else -1, record.full_costs["flops"]
    arms = tuple(replace(arm, search_score=sign * TOLD[arm.name]) for arm in record.arms)
    curve = tuple(CurvePoint({"flops": share * full}, sign * score) for share, score in CURVE.items())
    return replace(record, arms=arms, uniform_curve=curve)


@pytest.mark.parametrize("figure", [figures.tradeoff, figures.search_progress])
def test_figures_of_trials_hold_scores_of_trials_only(figure: object, heights: dict[str, list[float]]) -> None:
    record = rescored_run()
    page = figure(record)  # type: ignore[operator]
    drawn = {y for label, points in heights.items() if label != "failed" for y in points}
    assert drawn
    assert drawn <= {trial.score for trial in record.trials}
    assert "accuracy in the search" in page or "score in the search" in page


@pytest.mark.parametrize("higher", [True, False])
def test_winner_and_uniforms_are_drawn_with_the_curve_that_they_lie_on(
    higher: bool, heights: dict[str, list[float]]
) -> None:
    page = rescored(rescored_run(higher=higher))
    assert heights == {
        **{name: [score] for name, score in TOLD.items()},
        "uniform, other budgets": list(CURVE.values()),
    }
    assert "score on all validation data, %" in page


def test_runs_that_were_not_scored_so_have_no_such_figure(tmp_path: Path) -> None:
    record = rescored_run()
    unscored = replace(record, arms=tuple(replace(arm, search_score=None) for arm in record.arms))
    assert rescored(unscored) == ""
    assert "once more, on all validation data" not in write_html(unscored, tmp_path / "report.html").read_text()
    assert not any("before training" in note for note in collect(unscored).notes)
    assert "once more, on all validation data" in write_html(record, tmp_path / "report.html").read_text()


def test_the_two_scores_of_a_network_have_two_headings_and_a_note_says_why() -> None:
    record = rescored_run()
    facts = collect(replace(record, job={**record.job, "search": {"allocations": ["surrogate"]}}))
    arms, rules = facts.arms, facts.rules
    own = {row[0]: row[arms.header.index("before training")] for row in arms.rows}
    assert own["uniform_inner"] == "97.50 %"
    trials = {row[0]: row[rules.header.index("as a trial of the search")] for row in rules.rows}
    assert trials["uniform_inner"] == f"{record.trials[1].score:.2f} %" != own["uniform_inner"]
    assert not set(arms.header[1:4]) & set(rules.header[1:2])
    (note,) = [note for note in facts.notes if '"before training"' in note]
    assert "do not compare" in note


def test_sentences_that_hold_such_scores_do_not_call_them_the_searchs() -> None:
    record = replace(rescored_run(), finals=(), verdict=None)
    sentence = collect(record).sentence
    assert "Scores on all validation data, before any final training: winner 98.12 %, uniform_all 97.00 %" in sentence
    assert "on all validation data before it" in next(iter(family_notes([record])))
