"""What stands beside the verdict: measured latency, and warnings where a cut of FLOPs bought no speed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from example_runs import example_run

from autoprune.report.facts import collect
from autoprune.report.html import write_html
from autoprune.report.markdown import write_markdown
from autoprune.report.measured import headline
from autoprune.verdict.record import RunRecord

CONDITIONS = {
    "backend": "onnxruntime",
    "threads": 2,
    "batch": 0,
    "dtype": "float32",
    "channels_last": False,
    "device": "cpu",
    "fold_batch_norm": False,
}


def latency(quiet: float) -> dict[str, Any]:
    spread = {"quiet": quiet, "ms": 1.1 * quiet, "quartiles": [1.05 * quiet, 1.2 * quiet], "repeats": 50}
    return spread | {"conditions": CONDITIONS, "machine": "Abacus", "versions": {"onnxruntime": "1.30"}}


def measured(**quiet: float) -> RunRecord:
    return example_run(measured={"networks": {name: latency(ms) for name, ms in quiet.items()}})


def test_winner_uniform_and_unpruned_network_are_told_with_their_ratios() -> None:
    (told,) = headline(measured(winner=2.0, uniform_all=2.5, uniform_inner=3.0, unpruned=5.0))
    assert told == (
        "Measured latency (cpu, onnxruntime, 2 threads, batch of the example): winner 2 ms, uniform_all 2.5 ms, "
        "uniform_inner 3 ms, unpruned 5 ms; the searched network is 2.50 × as fast as the unpruned network, "
        "1.50 × as fast as uniform_inner, 1.25 × as fast as uniform_all."
    )


@pytest.mark.parametrize(
    ("winner", "uniform", "warned"),
    [
        (2.0, 2.2, []),
        (2.2, 2.0, ["slower than uniform_all (0.91 × as fast)"]),
        (2.03, 2.0, []),  # within the noise of measuring
        (6.1, 6.5, ["slower than the unpruned network (0.82 × as fast)"]),
        (6.1, 4.0, ["slower than the unpruned network (0.82 × as fast)", "slower than uniform_all (0.66 × as fast)"]),
        (4.95, 5.0, ["no faster than the unpruned network"]),
        (5.05, 5.2, ["no faster than the unpruned network"]),
    ],
)
def test_a_winner_that_is_not_faster_is_warned_of_with_the_way_out(
    winner: float, uniform: float, warned: list[str]
) -> None:
    _, *found = headline(measured(winner=winner, uniform_all=uniform, unpruned=5.0))
    assert len(found) == len(warned)
    for line, words in zip(found, warned, strict=True):
        assert line.startswith(f"Warning: the searched network is {words}: flops did not buy speed on this device")
        assert "limit latency_ms" in line


def test_the_uniform_network_itself_is_not_slower_than_itself() -> None:
    assert len(headline(measured(winner=2.0, uniform_all=2.0, unpruned=5.0))) == 1


def test_a_measurement_under_a_latency_limit_is_told_alike() -> None:
    compared = {
        name: {"latency": latency(ms)} for name, ms in (("winner", 6.0), ("uniform_all", 5.5), ("unpruned", 5.0))
    }
    told, *warned = headline(example_run(latency={"compared": compared}))
    assert "winner 6 ms" in told
    assert len(warned) == 2


@pytest.mark.parametrize(("uniform", "warned"), [(5.05, 0), (5.2, 1)])
def test_uniform_widths_above_a_latency_limit_that_the_winner_was_held_to_are_told(uniform: float, warned: int) -> None:
    compared = {
        name: {"latency": latency(ms)} for name, ms in (("winner", 4.9), ("uniform_all", uniform), ("unpruned", 9.0))
    }
    _, *found = headline(example_run(latency={"compared": compared, "limit": 5.0}))
    assert len(found) == warned
    for line in found:
        assert "uniform_all was measured at 5.2 ms, above the limit of 5 ms" in line
        assert "the comparison favours uniform_all" in line


def test_both_pages_show_it_at_their_top_and_the_table_with_its_spread(tmp_path: Path) -> None:
    record = measured(winner=6.0, uniform_all=5.5, unpruned=5.0)
    page, text = (write(record, tmp_path / "page").read_text() for write in (write_html, write_markdown))
    for written in (page, text):
        assert written.index("Measured latency (cpu") < written.index("Networks compared")
        assert written.index("Warning: the searched network is slower") < written.index("Networks compared")
    facts = collect(record)
    rows = {row[0]: row for row in facts.latency.rows}
    assert rows["winner"][3:] == ("6", "0.83", "6.6 (6.3 to 7.2)")
    assert rows["unpruned"][4] == "1.00"
    assert rows["winner"][1] == facts.arms.rows[0][1]
    assert "50 repeats each" in facts.latency_notes[0]


def test_why_nothing_was_measured_is_told(tmp_path: Path) -> None:
    record = example_run(measured={"error": "the networks cannot be measured: RuntimeError: batch of 3."})
    assert headline(record) == ()
    for write in (write_html, write_markdown):
        assert "Latency was not measured: the networks cannot" in write(record, tmp_path / "page").read_text()


def test_a_run_of_an_older_version_says_nothing_of_it(tmp_path: Path) -> None:
    for write in (write_html, write_markdown):
        assert "Measured latency" not in write(example_run(), tmp_path / "page").read_text()
