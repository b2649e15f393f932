"""Jobs whose evaluator has rungs: what is refused before anything is written."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import write_job

from autoprune.config.job import load_job
from autoprune.errors import ConfigError
from autoprune.pipeline.checks import check_parts


@pytest.mark.parametrize("early_stopping", ["asha", "hyperband"])
def test_candidates_are_stopped_by_one_rule(tmp_path: Path, early_stopping: str) -> None:
    chain = {"name": "chain", "settings": {"steps": ["zero_cost", "inherited"]}}
    job = load_job(write_job(tmp_path / "job.yaml", {"search.evaluator": chain}))
    check_parts(job)
    both = {"search.evaluator": chain, "search.early_stopping": early_stopping}
    said = f"search.early_stopping is {early_stopping}, and the evaluator 'chain' stops .* leave early_stopping at none"
    with pytest.raises(ConfigError, match=said):
        check_parts(load_job(write_job(tmp_path / "job.yaml", both)))
