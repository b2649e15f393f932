"""What is scored once more after the search."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from autoprune.controllers.base import Trial, TrialState
from autoprune.cost.budget.repair import BudgetedSpace
from autoprune.pipeline.phases import rescoring
from autoprune.pipeline.phases.sparsity import FoundWidths, sparsity_arms
from autoprune.space.groups import Widths
from autoprune.testing.spaces import chain_space
from autoprune.verdict.baselines import RANDOM

DOMAIN = BudgetedSpace(chain_space([16, 24, 32]), {"flops": "50%"})
MEMBERS = [tuple(map(int, row)) for row in DOMAIN.sample(12, np.random.default_rng(0))]
ORIGINS = ["uniform_all", "uniform_inner", RANDOM, RANDOM, RANDOM, "slimming", *["controller"] * 6]
SCORES = [0.5, 0.4, 0.1, 0.3, 0.2, 0.05, *np.linspace(0.6, 0.9, 6).tolist()]
TRIALS = [
    Trial(number, widths, TrialState.COMPLETE, score, origin=origin)
    for number, (widths, origin, score) in enumerate(zip(MEMBERS, ORIGINS, SCORES, strict=True))
]


def run_of() -> Any:
    return SimpleNamespace(domain=DOMAIN, job=SimpleNamespace(search=SimpleNamespace(rescore=2)))


def test_every_network_that_the_winner_is_compared_with_is_scored_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Widths] = []

    def score_fully(run: Any, chosen: list[Widths], **_: Any) -> dict[Widths, float]:
        asked.extend(chosen)
        return dict.fromkeys(chosen, 0.7)

    monkeypatch.setattr(rescoring, "score_fully", score_fully)
    found = rescoring.rescore(run_of(), TRIALS, [MEMBERS[5]])
    assert asked[-4:] == [MEMBERS[0], MEMBERS[1], MEMBERS[4], MEMBERS[5]]  # uniforms, random median, sparsity training
    assert len(asked) == 6
    assert set(found) == set(asked)


def test_a_network_of_a_sparsity_training_has_the_score_after_the_search_or_none() -> None:
    one = FoundWidths("slimming", "slimming", MEMBERS[5], (), "")
    other = replace(one, name="other", widths=MEMBERS[6])
    arms = sparsity_arms(run_of(), [one, other], {MEMBERS[5]: 0.7})
    assert [(arm.name, arm.search_score, arm.evaluations) for arm in arms] == [("slimming", 0.7, 1), ("other", None, 1)]
    assert arms[0].costs == DOMAIN.budget.costs_of(MEMBERS[5])
