"""What a report says of blended scores, alone and as the last step of a chain."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from example_runs import example_run

from autoprune.report.blends import blend_notes
from autoprune.report.facts import collect
from autoprune.texts import ScoreScale
from autoprune.verdict.record import RunRecord

BLEND = {
    "name": "blend",
    "settings": {"parts": ["inherited", {"name": "zero_cost", "settings": {"proxy": "log_width"}}], "weights": [2, 1]},
}


def scored_by(evaluator: Any) -> RunRecord:
    record = example_run(searched=5)
    return replace(record, job={**record.job, "search": {**record.job.get("search", {}), "evaluator": evaluator}})


@pytest.mark.parametrize("before", [[], ["zero_cost"], ["zero_cost", "inherited"]])
def test_parts_are_told_wherever_their_blend_counts(before: list[str]) -> None:
    evaluator: Any = {"name": "chain", "settings": {"steps": [*before, BLEND]}} if before else BLEND
    (told,) = blend_notes(scored_by(evaluator))
    assert "means of those of inherited (weight 2), zero_cost (log_width) (weight 1)," in told


@pytest.mark.parametrize("steps", [[BLEND, "inherited"], ["zero_cost", "inherited"]])
def test_nothing_is_told_where_other_scores_count(steps: list[Any]) -> None:
    assert list(blend_notes(scored_by({"name": "chain", "settings": {"steps": steps}}))) == []
    assert list(blend_notes(scored_by("inherited"))) == []


@pytest.mark.parametrize("trained", [True, False])
def test_the_tasks_measure_is_said_of_what_has_it(trained: bool) -> None:
    record = replace(scored_by(BLEND), own_scale=ScoreScale("blend of scores"), scale=ScoreScale("accuracy", "%"))
    notes = collect(record if trained else replace(record, finals=(), verdict=None)).notes
    whose = "Scores" if trained else "Scores of the unpruned network"
    assert f"{whose} are accuracy in %, higher is better." in notes
    (told,) = (note for note in notes if note.startswith("Scores of the search are another thing: blend of scores"))
    assert ("say nothing about those after it" in told) == trained
