from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from example_runs import example_run

from autoprune.controllers.base import Trial, TrialState
from autoprune.report.dots import MANY
from autoprune.report.html import write_html
from autoprune.report.markdown import write_markdown

MEGABYTE = 10**6


def _ended(trial: Trial) -> Trial:
    kind = trial.number % 3 if trial.number > 20 else 0
    if kind == 1:
        return replace(trial, state=TrialState.FAILED, score=None, error=f"ValueError: address {trial.number}")
    return replace(trial, state=TrialState.PRUNED, fidelity=0.3) if kind == 2 else trial


@pytest.mark.parametrize("mixed", [False, True], ids=["complete", "mixed"])
def test_a_page_of_five_thousand_trials_is_small_and_shows_all(mixed: bool, tmp_path: Path) -> None:
    record = example_run(searched=5_000)
    if mixed:
        record = replace(record, trials=tuple(map(_ended, record.trials)))
    page = write_html(record, tmp_path / "report.html").read_text(encoding="utf-8")
    assert len(page.encode()) < MEGABYTE
    assert page.count("<") < 6_000  # elements a browser has to lay out
    searched = [t for t in record.trials if t.state is TrialState.COMPLETE]
    assert page.count("h.01") >= 2 * 2 * (len(searched) - MANY)  # two figures, each drawn for two widths
    assert write_markdown(record, tmp_path / "report.md").stat().st_size < MEGABYTE / 10
