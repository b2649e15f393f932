"""Whole searches whose candidates race, in the fastest form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import Convolutions, pictures

import autoprune
from autoprune.data import splits_from
from autoprune.evaluators.racing import Racing
from autoprune.evaluators.scoring_form import ScoringForm


def searched(run_dir: Path, **changes: Any) -> autoprune.SearchResult:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Convolutions(classes=4)
    given: dict[str, Any] = {
        "constraints": {"flops": "60%"},
        "data": splits_from((pictures(160, 0), pictures(200, 1))),
        "trained": False,
        "training": {"epochs": 2, "batch_size": 64, "lr": 0.1},
        "trials": 6,
        "controller": "evolution",
        "evaluator": {"name": "racing", "settings": {"first": 32, "incumbents": 1, "form": "fast"}},
        "verdict": {"seeds": 0, "random_candidates": 1, "latency": False},
        "device": "cpu",
        "run_dir": run_dir,
        "progress": "silent",
    }
    return autoprune.search(model, torch.zeros(1, 1, 8, 8), **(given | changes))


def told(result: autoprune.SearchResult) -> list[tuple[Any, ...]]:
    trials = json.loads((result.directory / "result.json").read_text())["trials"]
    return [(t["widths"], t["score"], t["standard_error"], t["paired"]) for t in trials]


def test_a_search_by_races_that_was_stopped_goes_on_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = ScoringForm(folded=True, channels_last=True, piece=50, calibrated_last=True)
    monkeypatch.setattr("autoprune.evaluators.scored_heirs.calibrates_faster_last", lambda *_: True)
    monkeypatch.setattr("autoprune.evaluators.scored_heirs.fastest_form", lambda *_: form)
    whole = searched(tmp_path / "whole")
    assert all(paired and error > 0 for _, _, error, paired in told(whole))
    assert ScoringForm.read(whole.directory / "evaluator") == form
    usual, calls = Racing.evaluate, list[int]()

    def stopped(self: Racing, *args: Any, **others: Any) -> Any:
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return usual(self, *args, **others)

    with monkeypatch.context() as patch:
        patch.setattr(Racing, "evaluate", stopped)
        with pytest.raises(KeyboardInterrupt):
            searched(tmp_path / "part")
    monkeypatch.setattr("autoprune.evaluators.scored_heirs.fastest_form", lambda *_: pytest.fail("measured again"))
    assert told(searched(tmp_path / "part", resume=True)) == told(whole)
