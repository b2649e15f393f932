"""The results as lines, and as a table with a summary on top."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coverage_models import idiom_table, kirigami_peer, model_optimizer_peer, ours, torch_pruning_peer
from coverage_models.catalogue import Entry

PEERS = (torch_pruning_peer.NAME, model_optimizer_peer.NAME, kirigami_peer.NAME)
TOOLS = (ours.NAME, *PEERS)
GOOD = ("verified", "works")

Results = dict[tuple[str, str], dict[str, Any]]
"""(model, tool) -> what was measured."""


EXPLANATION = """\
Random weights, one forward pass of one example. FLOPs are multiply-adds.

- autoprune: share of all matrix products, attention's included, that have a dimension which can be cut, after
  verification. It counts as verified when every group's cut equals the masked full network.
- Torch-Pruning: share of the FLOPs of convolution, linear and recurrent layers that got smaller when 30 % of every
  group was pruned by magnitude. It counts as working when the pruned network runs, its output has the right
  shape and a layer got smaller; no forward was edited by hand for it.
- Model Optimizer: the same for the smallest network of its FastNAS space, widths not rounded.
- torch-kirigami: as Torch-Pruning, 30 % of every group, or, where it finds no such plan, 30, 20, 10 or 5 % of all.
"""


@dataclass(frozen=True)
class Page:
    """The finished page, and whether all claims hold on it."""

    text: str
    holds: bool


def read(path: Path) -> Results:
    """All results of a file, the newest of each model and tool; a cut last line is dropped.

    Each knows the date of the run that it is from.
    """
    results: Results = {}
    date = ""
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        date = record.get("about", {}).get("date", date)
        if "model" in record:
            results[record["model"], record["tool"]] = {"date": date, **record}
    return results


def one_line(result: Mapping[str, Any]) -> str:
    """A result for the terminal."""
    told = (
        f"{result['flops_share']:.1%} of FLOPs" if "flops_share" in result else _short(result.get("problem", ""), 140)
    )
    return f"{result['tool']:15} {result['model']:50} {result['status']:9} {result['seconds']:6.1f} s  {told}"


def page(entries: Sequence[Entry], results: Results, about: Mapping[str, str], *, before: Results) -> Page:
    """Summary, claims, failures, the idioms, and one row for every model.

    Args:
        entries: idioms and models.
        results: what was measured.
        about: date, machine and versions.
        before: results that these must not be worse than; empty to compare with nothing.
    """
    idioms = [entry for entry in entries if entry.source == idiom_table.SOURCE]
    entries = [entry for entry in entries if entry.source != idiom_table.SOURCE]
    claims = [*(_claims(entries, results) if entries else []), *_no_worse(entries, results, before)]
    claims += idiom_table.claims(idioms, results)
    versions = ", ".join(f"{name} {value}" for name, value in about.items() if name not in ("date", "machine", "note"))
    parts = [
        "# Coverage: which models can be pruned\n",
        f"Written by `python benchmarks/coverage.py` on {about['date']} ({about['machine']}; {versions}).",
        f"{about['note']}\n",
        EXPLANATION,
        "## Claims\n",
        *(f"- {'holds' if holds else '**does not hold**'}: {text}" for text, holds in claims),
        "\n## Summary\n",
        *_summary(entries, results),
        "\n## Failures of autoprune\n",
        *_failures(entries, results),
        "\n## Idioms\n",
        *idiom_table.rows(idioms, results),
        "\n## Every model\n",
        f"{_when(entries, results)}\n",
        *_rows(entries, results),
    ]
    return Page("\n".join(parts) + "\n", all(holds for _, holds in claims))


def _claims(entries: Sequence[Entry], results: Results) -> list[tuple[str, bool]]:
    mine = [results.get((entry.label, ours.NAME), {}) for entry in entries]
    vision = [r for entry, r in zip(entries, mine, strict=True) if entry.source == "torchvision"]
    good, seen = _good(mine), _good(vision)
    shares = [r["flops_share"] if r.get("status") in GOOD else 0.0 for r in mine]
    median = statistics.median(shares)
    strange = sum(r.get("status") not in ("verified", "refused") for r in mine)
    return [
        (
            f"all classification models of torchvision give a verified space ({seen} of {len(vision)})",
            seen == len(vision),
        ),
        (f"at least 95 % of all models do ({good} of {len(mine)})", good >= 0.95 * len(mine)),
        (f"the others are refusals with a name ({strange} crashed, died, ran out of time or are missing)", not strange),
        (
            f"in the median model at least 95 % of the FLOPs can be pruned ({median:.1%}; failures count as 0)",
            median >= 0.95,
        ),
    ]


def _no_worse(entries: Sequence[Entry], results: Results, before: Results) -> list[tuple[str, bool]]:
    pairs = [
        (entry.label, old, new)
        for entry in entries
        if (old := before.get((entry.label, ours.NAME)))
        and (new := results.get((entry.label, ours.NAME))) != old
        and new
    ]
    worse = [
        label
        for label, old, new in pairs
        if (old["status"] in GOOD, round(old.get("flops_share", 0), 3), old.get("form") == "module")
        > (new["status"] in GOOD, round(new.get("flops_share", 0), 3), new.get("form") == "module")
    ]
    told = f"no model measured again is worse than before ({len(pairs) - len(worse)} of {len(pairs)})"
    return [(f"{told}{': worse are ' if worse else ''}{', '.join(worse)}", not worse)] if before else []


def _when(entries: Sequence[Entry], results: Results) -> str:
    dates = Counter(results[e.label, ours.NAME]["date"] for e in entries if (e.label, ours.NAME) in results)
    told = ", ".join(f"{n} rows on {date}" for date, n in sorted(dates.items(), reverse=True))
    return f"autoprune was measured for {told}; those of other days ran with the versions of then (column `date`)."


def _good(results: Sequence[Mapping[str, Any]]) -> int:
    return sum(result.get("status") in GOOD for result in results)


def _summary(entries: Sequence[Entry], results: Results) -> list[str]:
    rows = [
        "| source | models | families | " + " | ".join(f"{tool}: works | median FLOPs" for tool in TOOLS) + " |",
        "|---|---|---|" + "---|---|" * len(TOOLS),
    ]
    sources = list(dict.fromkeys(entry.source for entry in entries))
    for source in [*sources, "all"]:
        chosen = [entry for entry in entries if source in ("all", entry.source)]
        cells = [source, str(len(chosen)), str(len({(entry.source, entry.family) for entry in chosen}))]
        for tool in TOOLS:
            found = [results[entry.label, tool] for entry in chosen if (entry.label, tool) in results]
            shares = [r["flops_share"] if r["status"] in GOOD else 0.0 for r in found]
            cells += (
                [f"{_good(found)} of {len(found)}", f"{statistics.median(shares):.1%}"]
                if found
                else ["not run", "not run"]
            )
        rows.append("| " + " | ".join(cells) + " |")
    return [*rows, "\nThe median is over all models of the row; a failure counts as 0."]


def _failures(entries: Sequence[Entry], results: Results) -> list[str]:
    failed = [r for entry in entries if (r := results.get((entry.label, ours.NAME))) and r["status"] not in GOOD]
    if not failed:
        return ["None."]
    return [f"- `{r['model']}` {r['status']}: {_cell(r['problem'], 300)}" for r in failed]


def _rows(entries: Sequence[Entry], results: Results) -> list[str]:
    rows = [
        "| model | input | result | export s | labels s | verify s | groups | FLOPs | parameters | "
        "frozen (most channels) | largest error | Torch-Pruning | Model Optimizer | torch-kirigami | date |",
        "|" + "---|" * 15,
    ]
    newest = sorted(entries, key=lambda e: results.get((e.label, ours.NAME), {}).get("date", ""), reverse=True)
    for entry in newest:  # what was measured last comes first
        mine = results.get((entry.label, ours.NAME), {"status": "not run"})
        peers = [_peer(results.get((entry.label, peer), {"status": "not run"})) for peer in PEERS]
        rows.append("| " + " | ".join([entry.label, entry.size, *_ours(mine), *peers, mine.get("date", "")]) + " |")
    return rows


def _ours(result: Mapping[str, Any]) -> list[str]:
    if result["status"] != "verified":
        return [f"**{result['status']}** {_cell(result.get('problem', ''), 100)}", *[""] * 8]
    reasons = Counter(result["frozen_channels"]).most_common(1)
    frozen = f"{result['frozen']}: {_cell(reasons[0][0], 80)} ({reasons[0][1]})" if reasons else "0"
    return [
        f"verified, {result['form']}",
        *(f"{result[key]:.1f}" for key in ("export_seconds", "label_seconds", "verify_seconds")),
        str(result["groups"]),
        f"{result['flops_share']:.1%}",
        f"{result['params_share']:.1%}",
        frozen,
        f"{result['largest_error']:.0e}",
    ]


def _peer(result: Mapping[str, Any]) -> str:
    if result["status"] == "works":
        return f"{result['flops_share']:.1%}, {result['layers_cut']}/{result['layers']} layers"
    problem = f" {_cell(result['problem'], 80)}" if "problem" in result else ""
    return f"**{result['status']}**{problem}"


def _cell(text: str, limit: int) -> str:
    return _short(text, limit).replace("|", "\\|")


def _short(text: str, limit: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
