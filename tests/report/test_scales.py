"""What people read has the sign, the name and the unit of the measure, also where lower is better."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import pytest
from example_runs import example_run
from matplotlib.axes import Axes

from autoprune.pipeline.overview import write_overview
from autoprune.report import figures
from autoprune.report.facts import collect
from autoprune.report.recalibration import recalibration_notes
from autoprune.texts import ScoreScale, difference_text, interval_text, score_text

PERCENT, BARE = ScoreScale("accuracy", "%"), ScoreScale()
NATS = ScoreScale("divergence", "nats", higher_is_better=False)
DOWN = {"unit": "nats", "measure": "divergence", "better": False}


@pytest.mark.parametrize(
    ("scale", "score", "shown", "difference", "interval"),
    [
        (PERCENT, 71.25, "71.25 %", "+0.50", "-0.25 to +1.25"),
        (BARE, 0.71234, "0.7123", "+0.5", "-0.25 to +1.25"),
        (NATS, -0.123, "0.123 nats", "-0.5", "-1.25 to +0.25"),
    ],
)
def test_scores_and_differences_are_read_as_the_measure_counts(
    scale: ScoreScale, score: float, shown: str, difference: str, interval: str
) -> None:
    assert score_text(score, scale) == shown
    assert difference_text(0.5, scale) == difference
    assert interval_text(-0.25, 1.25, scale) == interval
    assert scale.turned(scale.turned(score)) == score


def test_a_score_of_zero_has_no_sign() -> None:
    assert score_text(0.0, NATS) == "0 nats"
    assert [PERCENT.of_difference, NATS.of_difference, BARE.of_difference] == [" points", " nats", ""]


def test_the_verdict_says_what_is_better_in_words_and_numbers() -> None:
    record = example_run(**DOWN, gain=4.0)
    assert record.verdict is not None
    first = record.verdict.comparisons[0]
    assert first.outcome == "better"
    assert first.difference > 0
    said = f"{-first.difference:+.3g} nats of divergence (lower is better), 95 % confidence interval "
    assert f"{said}{-first.high:+.3g} to {-first.low:+.3g}" in record.verdict.sentence
    assert "the searched widths are better than uniform pruning" in record.verdict.sentence


def test_tables_and_notes_have_no_percent_and_no_minus_before_scores() -> None:
    record = example_run(**DOWN)
    facts = collect(record)
    assert "Scores are divergence in nats, lower is better." in facts.notes
    assert not any("points" in note for note in facts.notes)
    for row in facts.arms.rows:
        assert re.fullmatch(r"\d\.\d+( ± \S+)? nats", row[1])
        assert re.fullmatch(r"\d\.\d+ nats", row[3])
    row, first = facts.comparisons.rows[0], record.verdict.comparisons[0]  # type: ignore[union-attr]
    assert row[2] == f"{-first.difference:+.3g} nats"
    assert row[3] == f"{-first.high:+.3g} to {-first.low:+.3g}"
    assert any("which expects 0.789 ± 0.003 nats" in note for note in facts.notes)


def test_chances_say_which_way_is_better() -> None:
    note = next(n for n in collect(example_run(**DOWN, chances={"uniform_all": 0.9})).notes if "By that model" in n)
    assert "the winner scores lower, so better, before any final training" in note
    note = next(n for n in collect(example_run(chances={"uniform_all": 0.9})).notes if "By that model" in n)
    assert "the winner scores higher before any final training" in note


def test_a_run_without_labels_says_why_nothing_was_trained() -> None:
    record = replace(example_run(**DOWN, trained=False), no_training="its data have no labels to train on")
    sentence = collect(record).sentence
    assert "no final networks were trained, as its data have no labels to train on, so" in sentence
    assert "winner 0.787 nats" in sentence
    assert sentence.endswith("(divergence in nats, lower is better).")


@pytest.mark.parametrize("figure", [figures.tradeoff, figures.search_progress])
def test_figures_show_scores_with_their_own_sign(figure: object, heights: dict[str, list[float]]) -> None:
    record = example_run(**DOWN)
    page = figure(record)  # type: ignore[operator]
    scores = {-trial.score for trial in record.trials if trial.score is not None}
    assert set(heights["search"]) <= scores
    assert min(heights["search"]) > 0
    if "best so far" in heights:
        searched = [-t.score for t in record.trials[6:] if t.state.value == "complete" and t.score is not None]
        assert heights["best so far"] == list(accumulate(searched, min))
    assert "divergence in the search, nats (lower is better)" in page


def test_the_figure_of_intervals_has_the_same_ends_as_the_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    record = example_run(**DOWN)
    assert record.verdict is not None
    ends: list[list[float]] = []
    original = Axes.plot

    def seen(self: Axes, x: list[float], *args: object, **kwargs: object) -> object:
        ends.append(list(x))
        return original(self, x, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(Axes, "plot", seen)
    page = figures.intervals(record.verdict.comparisons, record.scale)
    for comparison in record.verdict.comparisons:
        assert [-comparison.high, -comparison.low] in ends
        assert [-comparison.difference] in ends
    assert "searched minus uniform, nats (divergence, lower is better)" in page
    assert "searched minus uniform, points" in figures.intervals(record.verdict.comparisons, PERCENT)


def test_recalibration_and_overview_read_it_too(tmp_path: Path) -> None:
    record = example_run(**DOWN)
    moved = replace(
        record, base={**record.base, "as_trained": -0.9, "validation": -0.5, "noise": 0.1}, directory=tmp_path
    )
    (note,) = recalibration_notes(moved)
    assert "unpruned 0.9 nats as trained, 0.5 nats recalibrated" in note
    text = write_overview([moved], tmp_path, budgets=1).read_text()
    assert "Scores are divergence in nats, lower is better." in text
    means = [f.score for f in record.finals if (f.arm, f.protocol) == ("winner", "fine_tune")]
    assert f"| {-sum(means) / len(means):.4g} nats |" in text
