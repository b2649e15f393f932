"""Spaces whose groups share one ratio are searched with the channels of every layer ranked among themselves."""

from __future__ import annotations

from pathlib import Path

from tiny import write_job

from autoprune.config import load_job
from autoprune.pipeline.ingredients import ingredients_of
from autoprune.pipeline.prepare import prepare


def test_candidates_of_a_tied_space_have_the_size_that_was_priced(tmp_path: Path) -> None:
    job = load_job(write_job(tmp_path / "job.yaml", {"space": {"per": "model"}}))
    prepared = prepare(ingredients_of(job))
    assert any(group.sets for group in prepared.space.groups)
    scores = prepared.scores(prepared.network)
    bench = prepared.bench(prepared.network, scores)
    proposals = [widths for _, widths in prepared.plan(scores)] + prepared.controller(scores).ask(3)
    for widths in proposals:
        built = sum(parameter.numel() for parameter in bench.candidate(widths).parameters())
        assert built == prepared.domain.budget.costs_of(widths)["params"]
