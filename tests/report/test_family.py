from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from example_runs import example_run

from autoprune.controllers.base import Trial
from autoprune.pipeline.overview import write_overview
from autoprune.report.family import family_notes, family_table
from autoprune.verdict.record import RunRecord


def budgeted(share: float, mean: float, *, higher: bool = True, **changes: Any) -> RunRecord:
    """A run at this share of the FLOPs whose winner ends at this score."""
    record = example_run(unit="%" if higher else "nats", better=higher)
    full = record.full_costs["flops"]
    score = mean if higher else -mean
    finals = tuple(replace(f, score=score if f.arm == "winner" else score - 1) for f in record.finals)
    budget = ({"metric": "flops", "upper": share * full, "full": full, "smallest": 1.0},)
    directory = Path(f"runs/family/{share:g}")
    return replace(record, **({"finals": finals, "budget": budget, "directory": directory} | changes))


def column(records: list[RunRecord], name: str) -> list[str]:
    table = family_table(records)
    return [row[table.header.index(name)] for row in table.rows]


@pytest.mark.parametrize(
    ("scores", "marks"),
    [
        ((90.0, 80.0, 70.0), ("", "", "")),
        ((90.0, 91.5, 70.0), ("yes: flops ≤ 50.0 %, 91.50 %", "", "")),
        ((90.0, 91.0, 92.0), ("yes: flops ≤ 25.0 %, 92.00 %", "yes: flops ≤ 25.0 %, 92.00 %", "")),
        ((90.0, 90.0, 90.0), ("", "", "")),
    ],
)
def test_a_smaller_budget_whose_winner_is_better_is_marked(scores: tuple[float, ...], marks: tuple[str, ...]) -> None:
    records = [budgeted(share, score) for share, score in zip((0.75, 0.5, 0.25), scores, strict=True)]
    assert tuple(column(records, "a smaller one is better")) == marks
    assert tuple(column(records[::-1], "a smaller one is better")) == marks[::-1]
    assert any("a smaller budget's winner" in note for note in family_notes(records)) == any(marks)


def test_of_measures_that_count_down_the_lower_score_is_the_better_one() -> None:
    records = [budgeted(share, score, higher=False) for share, score in ((0.75, 0.4), (0.5, 0.3), (0.25, 0.9))]
    assert column(records, "a smaller one is better") == ["yes: flops ≤ 50.0 %, 0.3 nats", "", ""]


def test_scores_after_training_are_not_compared_with_those_of_a_search() -> None:
    records = [budgeted(0.75, 60.0), budgeted(0.5, 60.0, finals=(), verdict=None)]
    assert column(records, "a smaller one is better") == ["", ""]


def test_how_often_widths_were_scored_is_counted() -> None:
    """Several workers may be handed the same widths; a score that comes from memory took no time."""
    record = budgeted(0.5, 90.0)
    scored = [trial for trial in record.trials if trial.score is not None]
    first, second, third = scored[:3]
    timed = [replace(first, seconds=2.0), replace(second, seconds=2.0), replace(third, widths=first.widths)]

    def told(trials: list[Trial]) -> str:
        return list(family_notes([replace(record, trials=tuple(trials))]))[-1]

    assert told(timed) == "3 scored trials over all budgets, 2 distinct width vectors; none was scored twice."
    timed[2] = replace(timed[2], seconds=1.5)
    assert told(timed).endswith("2 distinct width vectors; 1 evaluation repeated another.")
    timed.append(replace(timed[2], number=99))
    assert told(timed).endswith("2 distinct width vectors; 2 evaluations repeated another.")


def test_a_limit_on_another_metric_is_no_smaller_budget() -> None:
    other = ({"metric": "params", "upper": 10.0, "full": 100.0, "smallest": 1.0},)
    assert column([budgeted(0.75, 60.0), budgeted(0.5, 90.0, budget=other)], "a smaller one is better") == ["", ""]


def test_the_chart_shows_a_point_for_each_budget_and_rings_the_marked_ones(tmp_path: Path) -> None:
    records = [budgeted(0.75, 90.0), budgeted(0.5, 91.5), budgeted(0.25, 70.0)]
    write_overview(records, tmp_path, budgets=4)
    page, text = ((tmp_path / f"overview.{kind}").read_text() for kind in ("html", "md"))
    assert "4 budgets, 1 still to come" in page
    for label in ("better uniform", "winner", "unpruned", "a smaller budget's winner is better"):
        assert label in page
    assert all(f'<a href="{share}/report.html">' in page for share in ("0.75", "0.5", "0.25"))
    assert "yes: flops ≤ 50.0 %, 91.50 %" in text
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", page)
    write_overview(records[2:], tmp_path, budgets=1)
    assert "winner is better" not in (tmp_path / "overview.html").read_text()


def test_a_family_without_scores_has_a_page_without_a_chart(tmp_path: Path) -> None:
    record = budgeted(0.5, 90.0, finals=(), verdict=None)
    unscored = replace(record, arms=tuple(replace(arm, search_score=None) for arm in record.arms))
    write_overview([unscored], tmp_path, budgets=1)
    assert "<svg" not in (tmp_path / "overview.html").read_text()
