"""Rows of trainings kept as JSON lines, and how their scores are told."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student

Row = dict[str, Any]


def read_rows(path: Path) -> list[Row]:
    """The rows that are there; a line that was cut short is trained again."""
    if not path.exists():
        return []
    text = path.read_text()
    whole = [line for line in text.splitlines() if line.endswith("}")]
    if text and not text.endswith("\n"):
        path.write_text("".join(f"{line}\n" for line in whole))
    return [json.loads(line) for line in whole]


def add_row(path: Path, row: Row) -> None:
    """Keep one more row, below a folder that need not be there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")


def half_width(values: Sequence[float]) -> float:
    """Of the 95 % interval of the mean, by Student's t; infinite for fewer than two values."""
    if len(values) < 2:
        return float("inf")
    return float(student.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))


def interval(values: Sequence[float], *, sign: str = "") -> str:
    """Mean and half of the 95 % interval; a dash for no values.

    Args:
        values: one for each seed.
        sign: "+" shows that of the mean.
    """
    if not values:
        return "–"
    mean = f"{float(np.mean(values)):{sign}.2f}"
    return mean if len(values) < 2 else f"{mean} ± {half_width(values):.2f}"
