"""What the comparison of rungs with plain scores says about given rows; how many trials are worth the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import rungs


def _rows(scores: Mapping[tuple[str, int], Sequence[float]]) -> list[dict[str, Any]]:
    """One row for each final training: (arm, search) -> scores by seed."""
    about = {"images": 3000, "epochs": 4, "trials": 30, "base": 81.1, "search_seconds": 60.0}
    return [
        about | {"arm": arm, "search": search, "seed": seed, "score": score}
        for (arm, search), own in scores.items()
        for seed, score in enumerate(own)
    ]


def test_a_plain_search_has_as_many_passes_as_one_with_rungs() -> None:
    """By hand: 2,280 for a score, 18,920 for a training with its refit and its score."""
    passes = 30 * (2280 + 18_920 / 3) + 13 * 18_920
    assert rungs.plain_trials(30) == round(passes / 2280) == 221


def test_searches_are_paired_and_compared_with_uniform_of_the_same_seed() -> None:
    text, behind = rungs.page(
        _rows(
            {
                ("uniform", 0): [70.0, 71.0],
                ("plain", 0): [71.0, 72.0],  # +1
                ("plain", 1): [73.0, 74.0],  # +3
                ("rungs", 0): [72.0, 73.0],  # +2
                ("rungs", 1): [75.0, 74.0],  # +4
            }
        )
    )
    assert not behind
    assert "| plain | 2 | +2.00 ± 12.71 | 60 |" in text
    assert "| rungs | 2 | +3.00 ± 12.71 | 60 |" in text
    assert "Rungs above plain, paired by search: +1.00 ± 0.00; above few: –." in text


@pytest.mark.parametrize(("rungs_scores", "behind"), [((70.0, 71.1), True), ((70.0, 69.0), False)])
def test_behind_is_what_chance_does_not_explain(rungs_scores: tuple[float, float], behind: bool) -> None:
    """Behind by 1.0 and 0.9 is; by 1.0 and 3.0 may be chance."""
    first, second = rungs_scores
    rows = _rows(
        {
            ("uniform", 0): [70.0],
            ("plain", 0): [71.0],
            ("plain", 1): [72.0],
            ("rungs", 0): [first],
            ("rungs", 1): [second],
        }
    )
    assert rungs.page(rows)[1] == behind


def test_searches_that_have_not_ended_are_left_out() -> None:
    text, behind = rungs.page(_rows({("uniform", 0): [70.0], ("plain", 0): [71.0]}))
    assert not behind
    assert "| rungs | 0 | – | – |" in text
    assert rungs.page([]) == ("No rows.\n", False)
