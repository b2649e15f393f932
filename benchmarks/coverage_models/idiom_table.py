"""The table of idioms: what of each can be cut, in which form, and why."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from coverage_models import kirigami_peer, ours, torch_pruning_peer
from coverage_models.catalogue import Entry

SOURCE = "idiom"
_PEERS = (torch_pruning_peer.NAME, kirigami_peer.NAME)
Results = Mapping[tuple[str, str], Mapping[str, Any]]


def claims(entries: Sequence[Entry], results: Results) -> list[tuple[str, bool]]:
    """What must hold of the idioms, those left out whose package is not installed."""
    found = [r for entry in entries if (r := results.get((entry.label, ours.NAME))) and r["status"] != "not built"]
    if not found:
        return []
    good = sum(r["status"] == "verified" for r in found)
    shares = [r.get("flops_share", 0.0) for r in found]
    return [
        (f"at least 95 % of the idioms give a verified space ({good} of {len(found)})", good >= 0.95 * len(found)),
        (f"in the median idiom at least 95 % of the FLOPs can be pruned ({statistics.median(shares):.1%})",
         statistics.median(shares) >= 0.95),
    ]  # fmt: skip


def rows(entries: Sequence[Entry], results: Results) -> list[str]:
    """One row for each."""
    lines = [
        "Small models, one for each idiom. *Can be cut*: share of the FLOPs in products with a dimension that can be",
        "cut; *left*: share of the FLOPs at the smallest widths. *Form*: the model's own class, or the graph it was",
        "traced to, and what the own class does wrong when cut.\n",
        f"| idiom | kind | can be cut | left | groups | form | frozen, but for the output | {' | '.join(_PEERS)} |",
        "|" + "---|" * (7 + len(_PEERS)),
    ]
    for entry in entries:
        mine = results.get((entry.label, ours.NAME), {"status": "not run"})
        peers = [_peer(results.get((entry.label, peer), {"status": "not run"})) for peer in _PEERS]
        lines.append("| " + " | ".join([entry.name, entry.family, *_ours(mine), *peers]) + " |")
    return lines


def _ours(result: Mapping[str, Any]) -> list[str]:
    if result["status"] != "verified":
        return ["", "", "", f"**{result['status']}** {_cell(result.get('problem', ''), 160)}", ""]
    why = f"graph: {_cell(result['why_graph'], 120)}" if result.get("why_graph") else result["form"]
    frozen = {reason: n for reason, n in result["frozen_channels"].items() if reason != "the model's output"}
    told = "; ".join(f"{_cell(reason, 90)} ({n})" for reason, n in frozen.items())
    form = "own class" if why == "module" else why
    return [f"{result['flops_share']:.1%}", f"{result['smallest']:.0%}", str(result["groups"]), form, told]


def _peer(result: Mapping[str, Any]) -> str:
    if result["status"] == "works":
        return f"{result['flops_share']:.1%}"
    return f"**{result['status']}** {_cell(result.get('problem', ''), 60)}"


def _cell(text: str, limit: int) -> str:
    line = " ".join(text.split()).replace("|", "\\|")
    return line if len(line) <= limit else line[: limit - 1] + "…"
