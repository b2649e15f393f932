"""A search for several budgets leaves the best network of each behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny import write_job

from autoprune.config.job import load_job
from autoprune.pipeline.driver import start_job
from autoprune.report.markdown import write_markdown
from autoprune.verdict.record import read_record


@pytest.mark.parametrize("more", [{}, {"per": "block"}, {"trust_region": 1.0, "budgets": []}])
def test_the_winners_of_a_pareto_search_are_reported_and_saved(tmp_path: Path, more: dict[str, object]) -> None:
    search = {"trials": 8, "controller": {"name": "pareto", "settings": {"budgets": [0.8], **more}}}
    (record,) = start_job(
        load_job(write_job(tmp_path / "job.yaml", {"search": search})), tmp_path / "run", progress="silent"
    )
    assert 1.0 in record.winners
    limit = record.budget[0]
    for share, widths in record.winners.items():
        trial = next(trial for trial in record.trials if trial.widths == widths)
        assert trial.costs[limit["metric"]] <= share * limit["upper"]
        saved = json.loads((tmp_path / "run" / f"winner_{share:g}.json").read_text())
        assert saved == record.space.by_name(widths)
    assert read_record(tmp_path / "run").winners == record.winners
    text = write_markdown(record, tmp_path / "report.md").read_text()
    assert "## The best of each budget" in text
    assert "winner_1.json" in text
