"""Spaces whose groups share one ratio are searched with the channels of every layer ranked among themselves."""

from __future__ import annotations

from pathlib import Path

from tiny import write_job

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
