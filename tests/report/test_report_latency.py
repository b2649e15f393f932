from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from example_runs import example_run

from autoprune.report.facts import collect
from autoprune.report.html import write_html
from autoprune.report.markdown import write_markdown
from autoprune.verdict.record import Arm, RunRecord


def measured(low: float, *, repeats: int = 200) -> dict[str, Any]:
    """A network that takes this long, and a little more where it is disturbed."""
    conditions = {
        "backend": "torch",
        "threads": 2,
        "batch": 8,
        "dtype": "float32",
        "channels_last": True,
        "device": "cpu",
        "fold_batch_norm": False,
    }
    latency = {"ms": 1.02 * low, "quiet": low, "quartiles": [1.01 * low, 1.05 * low], "repeats": repeats}
    latency |= {"conditions": conditions}
    latency |= {"machine": "Abacus", "versions": {"torch": "2.13"}}
    return {"widths": [1], "predicted": 0.98 * low, "scored": True, "latency": latency}


def latency_run(*, kept: bool = True, rival: bool = True, lower: float = 0.0) -> RunRecord:
    plain = example_run()
    arms = plain.arms
    finals = plain.finals
    if rival:
        flops = Arm("flops_search", arms[0].widths, {"flops": 31_000_000.0}, 70.0, 40)
        arms = (*arms, flops)
        finals += tuple(
            type(f)("flops_search", f.protocol, f.seed, f.epochs, f.score - 0.5 - f.seed / 100, f.seconds)
            for f in finals
            if f.arm == "winner"
        )
    facts = {
        "winner": measured(4.9, repeats=100),
        "measured": [measured(5.2, repeats=100), measured(4.9, repeats=100)],
        "limit": 5.0,
        "kept": kept,
        "profile": {"date": "2026-01-01", "error": {"median": 0.021, "networks": 48}},
        "compared": {arm.name: measured(5.0 + i / 10) for i, arm in enumerate(arms)} | {"unpruned": measured(10.0)},
    }
    limit = {"metric": "latency_ms", "upper": 5.0, "full": 10.0, "smallest": 1.0, "lower": lower}
    return example_run(arms=arms, finals=finals, latency=facts, budget=(*plain.budget, limit))


def test_every_network_has_its_measured_latency_beside_the_predicted_one() -> None:
    facts = collect(latency_run())
    rows = {row[0]: row[1:] for row in facts.latency.rows}
    assert next(iter(rows)) == "winner (searched by latency)"
    winner = rows["winner (searched by latency)"]
    assert winner[2:] == ("4.9", "5", "100.0 %", "5.1 (5.05 to 5.25)")
    assert rows["flops_search (searched by FLOPs)"][1] == "31.0 M"
    assert rows["unpruned"][3] == "10"
    arms = {row[0]: row[1] for row in facts.arms.rows}
    assert winner[0] == arms["winner"]  # the score after the deciding training


def test_the_conditions_are_stated() -> None:
    notes = " ".join(collect(latency_run()).latency_notes)
    for part in (
        "Measured on Abacus (cpu; torch, 2 threads, batch 8, float32, channels last, torch 2.13)",
        "200 repeats each",
        "Limit: 5 ms (50.0 % of what is predicted for the unpruned network).",
        "best of 2 measured networks that keeps it, with 4.9 ms (98.0 % of the limit)",
        "profile of 2026-01-01: median error 2.1 % on 48 networks",
        "Searched by latency minus searched by FLOPs, fine_tune: +0.51 points, 95 % confidence interval",
        "(better)",
    ):
        assert part in notes
    missed = " ".join(collect(latency_run(kept=False)).latency_notes)
    assert "None of 2 measured networks kept it; the winner is the fastest of them, with 4.9 ms" in missed
    assert "that keeps it" not in missed


def test_without_a_search_by_flops_nothing_is_said_about_one(tmp_path: Path) -> None:
    text = write_markdown(latency_run(rival=False), tmp_path / "report.md").read_text()
    assert "## Measured latency" in text
    assert "by FLOPs" not in text


@pytest.mark.parametrize("write", [write_markdown, write_html])
def test_both_reports_show_it_only_where_it_was_measured(write: Any, tmp_path: Path) -> None:
    assert "Measured latency" in write(latency_run(), tmp_path / "one").read_text()
    assert "Measured latency" not in write(example_run(), tmp_path / "other").read_text()


def test_a_range_shows_both_its_ends() -> None:
    limit = {"metric": "flops", "upper": 50e6, "full": 100e6, "smallest": 1e6, "percent": 50.0, "lower": 45e6}
    facts = collect(example_run(budget=(limit,)))
    assert facts.budget == "45.0 M ≤ flops ≤ 50.0 M (45.0 % to 50.0 % of 100.0 M)"
    row = next(row for row in facts.costs.rows if row[0] == "flops")
    assert row[1] == "45,000,000 to 50,000,000"
    assert "Limit: 5 ms (50.0 % of" in " ".join(collect(latency_run()).latency_notes)
    assert "at least 4.5 ms" in " ".join(collect(latency_run(lower=4.5)).latency_notes)


@pytest.mark.parametrize(
    ("entry", "line"),
    [
        (
            {"name": "ray", "workers": 4, "lost_workers": 1, "timed_out": 2, "retried": 3},
            "Evaluations ran on ray with 4 workers; 1 worker was lost, 2 evaluations passed their time limit, "
            "3 evaluations were tried again.",
        ),
        ({"name": "ray", "workers": 1}, "Evaluations ran on ray with 1 worker; nothing was lost or tried again."),
        ({"name": "ray", "lost_workers": 0}, "Evaluations ran on ray; nothing was lost or tried again."),
        ({"name": "local", "workers": 1}, None),
        (None, None),
    ],
)
def test_where_evaluations_ran_and_what_was_lost(entry: dict[str, Any] | None, line: str | None) -> None:
    notes = collect(example_run(provenance={"engine": entry} if entry else {})).notes
    assert [note for note in notes if note.startswith("Evaluations ran on")] == ([line] if line else [])
