from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from reconstruction.cells import Kept, Measured


def _work(cell: Measured) -> Measured:
    return replace(cell, score=50.0, base=90.0)


def test_a_line_cut_short_by_a_kill_is_measured_again_and_spoils_no_other(tmp_path: Path) -> None:
    path, cells = tmp_path / "cells.jsonl", [Measured("a", budget, "l2", "sliced") for budget in (75, 50, 25)]
    kept = Kept(path)
    for cell in cells[:2]:
        kept.once(cell, _work)
    path.write_text(path.read_text()[:-20])
    again = Kept(path)
    assert [cell.budget for cell in again.cells] == [75]
    for cell in cells:
        again.once(cell, _work)
    assert [cell.budget for cell in Kept(path).cells] == [75, 50, 25]


def test_what_is_kept_is_not_measured_again(tmp_path: Path) -> None:
    path, cell = tmp_path / "cells.jsonl", Measured("a", 50, "l2", "sliced")
    Kept(path).once(cell, _work)
    asked: list[Measured] = []
    Kept(path).once(cell, lambda given: asked.append(given) or _work(given))  # type: ignore[func-returns-value]
    assert asked == []
