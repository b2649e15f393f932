"""How `benchmarks/methods.py` knows what is missing, and what its page says."""

from __future__ import annotations

from pathlib import Path

import methods
import pytest

ROW = {
    "job": "sss",
    "method": "sss(weight=0.01)",
    "score": "95.00 ± 0.10",
    "uniform": "uniform_all 94.00 ± 0.20",
    "difference": "+1.00",
    "interval": "+0.20 to +1.80",
    "outcome": "better",
    "passes": 8.0,
    "seconds": 12.5,
    "from": "the base network",
    "run_seconds": 61.0,
}


def test_comments_do_not_make_another_job(tmp_path: Path) -> None:
    one, other, changed = (tmp_path / f"{n}.yaml" for n in range(3))
    one.write_text("# a\nname: x\nseed: 0\n")
    other.write_text("# b\n# c\nname: x\nseed: 0\n")
    changed.write_text("# a\nname: x\nseed: 1\n")
    assert methods.digest(one) == methods.digest(other) != methods.digest(changed)


def test_the_page_has_a_row_for_each_arm_and_names_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(methods, "PAGE", tmp_path / "methods.md")
    methods.write_page([ROW])
    text = (tmp_path / "methods.md").read_text()
    (row,) = (line for line in text.splitlines() if line.startswith("| [sss"))
    assert "Huang & Wang 2018" in row
    assert "| +1.00 | +0.20 to +1.80 (better) | the base network | 8 | 12.5 | 61 |" in row
    missing = text.rpartition("Not run yet: ")[2]
    assert "network_slimming" in missing
    assert "sss" not in missing.partition(";")[0].split(", ")
