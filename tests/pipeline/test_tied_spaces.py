"""Spaces whose groups share one ratio are searched with the channels of every layer ranked among themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny import perceptron, regression, write_job

from autoprune.config.job import load_job
from autoprune.pipeline.inputs import inputs_of_job
from autoprune.pipeline.prepare import prepare


def test_candidates_of_a_tied_space_have_the_size_that_was_priced(tmp_path: Path) -> None:
    job = load_job(write_job(tmp_path / "job.yaml", {"space": {"per": "model"}}))
    (prepared,) = prepare(inputs_of_job(job))
    assert any(group.sets for group in prepared.space.groups)
    scores = prepared.scores(prepared.network)
    factory = prepared.factory(prepared.network, scores)
    proposals = [widths for _, widths in prepared.plan(scores)] + prepared.controller(scores).ask(3)
    for widths in proposals:
        built = sum(parameter.numel() for parameter in factory.candidate(widths).parameters())
        assert built == prepared.domain.budget.costs_of(widths)["params"]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("surrogate", {"per": "stage"}),
        ("surrogate", {"trust_region": 0.3}),
        ("pareto", {"per": "stage"}),
        ("legr", {"per": "model"}),
        ("optuna:TPESampler", {"per": "stage"}),
    ],
)
def test_the_settings_that_the_readme_names_run_to_a_verdict(name: str, settings: dict[str, Any]) -> None:
    result = regression(controller={"name": name, "settings": settings}, constraints={"flops": "50%", "params": "60%"})
    own = [trial for trial in result.trials if trial.origin == "controller"]
    assert len(own) == 4
    smallest, full = (1.6, 1.2), (16, 12)
    assert all(a <= w <= b for trial in own for a, w, b in zip(smallest, trial.widths, full, strict=True))
    assert result.verdict is not None
    assert sum(p.numel() for p in result.model.parameters()) <= 0.6 * sum(p.numel() for p in perceptron().parameters())
