"""A whole run whose scores are blended, until its report; what goes on takes the scales that it began with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import write_job

from autoprune.config.job import load_job
from autoprune.errors import ConfigError
from autoprune.pipeline.checks import check_parts
from autoprune.pipeline.driver import resume_job, start_job

PARTS: list[Any] = [{"name": "inherited", "settings": {"calibration_batches": 2}}, "zero_cost"]


def test_scores_are_standardised_on_the_budget_and_a_run_goes_on_with_its_scales(tmp_path: Path) -> None:
    changes = {
        "search.evaluator": {"name": "blend", "settings": {"parts": PARTS}},
        "search.trials": 3,
        "verdict.latency": False,
    }
    run = tmp_path / "run"
    (record,) = start_job(load_job(write_job(tmp_path / "job.yaml", changes)), run, progress="silent")
    assert record.search_scale.name == "blend of scores"
    scores = np.array([trial.score for trial in record.trials])
    assert np.abs(scores).max() < 20, "in standard deviations of networks of this budget, not of all"
    report = (run / "report.md").read_text()
    assert "blend of scores" in report
    assert "nan" not in report.lower()
    kept = json.loads((run / "evaluator" / "scales.json").read_text())
    assert min(kept["part"]["deviations"]) > 0
    assert "Scores of the search are means of those of inherited, zero_cost, each in standard deviations" in report
    (more,) = resume_job(run, changes={"search.trials": 5}, progress="silent")
    assert [trial.score for trial in more.trials[: len(scores)]] == list(scores)
    assert len(more.trials) == len(scores) + 2
    assert json.loads((run / "evaluator" / "scales.json").read_text()) == kept


def test_parts_that_cannot_be_blended_are_refused_before_anything_is_trained(tmp_path: Path) -> None:
    blend = {"name": "blend", "settings": {"parts": ["scratch", "short_training"]}}
    with pytest.raises(ConfigError, match="at most one of its parts may train, got 2"):
        check_parts(load_job(write_job(tmp_path / "job.yaml", {"search.evaluator": blend})))


def test_runs_of_a_family_have_scales_and_scores_of_their_own(tmp_path: Path) -> None:
    """The uniform widths of the second budget are on the curve of the first, scored by other scales."""
    changes = {
        "search.evaluator": {"name": "blend", "settings": {"parts": PARTS}},
        "search.trials": 2,
        "constraints": {"flops": ["50%", "40%"]},
        "verdict": {"seeds": 0, "latency": False},
    }
    records = start_job(load_job(write_job(tmp_path / "job.yaml", changes)), tmp_path / "run", progress="silent")
    alone = {**changes, "constraints": {"flops": "40%"}}
    (expected,) = start_job(load_job(write_job(tmp_path / "one.yaml", alone)), tmp_path / "one", progress="silent")
    found = {arm.name: arm.search_score for arm in records[1].arms if arm.name.startswith("uniform")}
    assert found == {arm.name: arm.search_score for arm in expected.arms if arm.name.startswith("uniform")}
    costs = [arm.costs for arm in records[1].arms]
    assert any(point.costs == cost for point in records[0].uniform_curve for cost in costs), "scored by both"
