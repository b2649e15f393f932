from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from example_runs import example_run

from autoprune.report.html import write_html
from autoprune.report.markdown import write_markdown
from autoprune.report.recalibration import recalibration_notes
from autoprune.verdict.record import RunRecord, write_record


def moved(
    by: float, noise: float | None, *, arm: str = "uniform_all", protocol: str = "fine_tune", **run: Any
) -> RunRecord:
    """A run in which recalibration raised the scores of an arm."""
    record = example_run(**run)
    finals = tuple(
        replace(f, as_trained=f.score - by if (f.arm, f.protocol) == (arm, protocol) else f.score, noise=noise)
        for f in record.finals
    )
    return replace(record, finals=finals)


@pytest.mark.parametrize(("by", "warns"), [(0.9, False), (-0.9, False), (1.1, True), (-1.1, True)])
def test_a_warning_names_what_recalibration_moves_by_more_than_the_noise(by: float, warns: bool) -> None:
    notes = list(recalibration_notes(moved(by, noise=1.0)))
    assert bool(notes) == warns
    if warns:
        scores = [f.score for f in example_run().finals if (f.arm, f.protocol) == ("uniform_all", "fine_tune")]
        mean = sum(scores) / len(scores)
        assert f"uniform_all {mean - by:.2f} % as trained, {mean:.2f} % recalibrated (fine_tune, mean of 3" in notes[0]
        assert "3 seeds, whose scores move by 1.10 points (root mean square) beside a noise of 1.00)" in notes[0]
        assert "winner" not in notes[0]
        assert "scratch_e" not in notes[0]


@pytest.mark.parametrize(
    ("moves", "warns"), [((1.5, 0.0, 0.0), False), ((1.5, -1.5, 0.0), True), ((2.0, 0.0, 0.0), True)]
)
def test_one_seed_of_several_may_be_unlucky(moves: tuple[float, ...], warns: bool) -> None:
    record = example_run()
    finals = tuple(replace(f, as_trained=f.score - moves[f.seed], noise=1.0) for f in record.finals)
    assert bool(list(recalibration_notes(replace(record, finals=finals)))) == warns


def test_moves_up_and_down_are_told_where_the_means_are_equal() -> None:
    record = example_run(unit="nats", measure="loss", better=False)
    moves = (0.25, -0.25, 0.0)
    finals = tuple(replace(f, as_trained=f.score - moves[f.seed], noise=0.01) for f in record.finals)
    (note,) = recalibration_notes(replace(record, finals=finals))
    mean = -sum(f.score for f in finals if (f.arm, f.protocol) == ("winner", "fine_tune")) / 3
    assert f"winner {mean:.4g} nats as trained, {mean:.4g} nats recalibrated (fine_tune, mean of 3 seeds, whose" in note
    assert "whose scores move by 0.204 nats (root mean square) beside a noise of 0.01)" in note


def test_the_unpruned_network_is_named_too() -> None:
    record = example_run()
    base = {**record.base, "as_trained": 80.0, "noise": 1.5}
    (note,) = recalibration_notes(replace(record, base=base))
    assert "unpruned 80.00 % as trained, 91.20 % recalibrated (validation)" in note
    assert not list(recalibration_notes(replace(record, base={**base, "noise": 20.0})))


def test_where_nobody_knows_the_noise_it_is_the_spread_over_seeds() -> None:
    assert list(recalibration_notes(moved(0.05, None, unit="")))
    assert not list(recalibration_notes(moved(1e-6, None, unit="")))


def test_runs_without_recalibration_and_of_older_versions_say_nothing() -> None:
    assert not list(recalibration_notes(example_run()))


def test_both_pages_say_it(tmp_path: Path) -> None:
    record = moved(20.0, noise=1.0, arm="winner")
    for page in (write_html(record, tmp_path / "report.html"), write_markdown(record, tmp_path / "report.md")):
        assert "Warning: after training, recalibrating" in page.read_text(encoding="utf-8")


def test_both_scores_are_on_disk() -> None:
    record = moved(20.0, noise=1.0)
    kept = json.loads(json.dumps(write_record(record)))["finals"]
    assert [(f["as_trained"], f["noise"]) for f in kept] == [(f.as_trained, f.noise) for f in record.finals]
