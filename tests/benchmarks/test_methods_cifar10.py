"""What the page of `benchmarks/methods_cifar10.py` says of rows, and how rows are kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import methods_cifar10
import numpy as np
import pytest
from reconstruction.kept import add_row, half_width, interval, read_rows
from scipy.stats import t

SCORES = {"uniform_all": (70.0, 71.0, 72.0), "surrogate": (73.0, 74.0, 75.5), "bar": (72.9, 74.2, 75.0)}


def rows() -> list[dict[str, Any]]:
    settings = {"images": 3000, "sparsity_epochs": 3, "epochs": 2, "trials": 14}
    about = {"base": 81.1, "flops": 50.0, "passes": 0.0, "final_epochs": 5, "found_in": 1.0, "seconds": 2.0}
    return [
        {"arm": arm, "seed": seed, "score": score, **settings, **about}
        for arm, scores in SCORES.items()
        for seed, score in enumerate(scores)
    ]


def test_the_page_says_who_is_ahead_and_of_whom_by_more_than_chance() -> None:
    text = methods_cifar10.page(rows())
    lead = np.subtract(SCORES["surrogate"], SCORES["uniform_all"])
    half = t.ppf(0.975, 2) * lead.std(ddof=1) / np.sqrt(3)
    (row,) = (line for line in text.splitlines() if line.startswith("| surrogate"))
    assert f"| +{lead.mean():.2f} ± {half:.2f} | – |" in row
    assert "Ahead: surrogate, " in text
    assert f"It leads by more than chance over uniform_all (+{lead.mean():.2f} ± {half:.2f})." in text
    assert "Its lead may be chance over bar (" in text
    assert "14 proposals" in text
    assert methods_cifar10.page([]) == "No rows.\n"


def test_arms_are_in_one_order_and_differences_are_of_seeds_that_both_have() -> None:
    given = [row for row in reversed(rows()) if (row["arm"], row["seed"]) != ("surrogate", 2)]
    table = [line for line in methods_cifar10.page(given).splitlines() if line.startswith("| ")]
    assert [line.split(" | ")[0] for line in table[1:]] == ["| uniform_all", "| surrogate", "| bar"]
    assert "+3.00 ± 0.00" in table[2]


def test_rows_are_kept_and_one_that_was_cut_short_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "new" / "rows.jsonl"
    assert read_rows(path) == []
    for number in range(2):
        add_row(path, {"number": number})
    path.write_text(path.read_text() + '{"number": 2, "sco')
    assert read_rows(path) == [{"number": 0}, {"number": 1}]
    add_row(path, {"number": 2})
    assert [json.loads(line)["number"] for line in path.read_text().splitlines()] == [0, 1, 2]


def test_intervals_are_student_s() -> None:
    values = [1.0, 2.0, 4.0]
    low, high = t.interval(0.95, 2, loc=np.mean(values), scale=np.std(values, ddof=1) / np.sqrt(3))
    assert half_width(values) == pytest.approx((high - low) / 2)
    assert interval(values) == f"{np.mean(values):.2f} ± {(high - low) / 2:.2f}"
    assert interval([1.0], sign="+") == "+1.00"
    assert (interval([]), half_width([1.0])) == ("–", float("inf"))
