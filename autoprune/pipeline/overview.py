"""The overview of a family of searches: one row for each budget, as Markdown beside the runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from autoprune.allocation import UNIFORM
from autoprune.files import write_whole
from autoprune.report.words import FLOPS, lower_end, percent, quantity
from autoprune.texts import score_text
from autoprune.verdict.record import Arm, RunRecord


def write_overview(records: Sequence[RunRecord], directory: Path, *, budgets: int) -> Path:
    """Write `overview.md` and return its path.

    Args:
        records: the runs that have ended, in the order of the budgets.
        directory: of the family.
        budgets: how many there are.
    """
    target = directory / "overview.md"
    write_whole(target, "\n".join(_lines(records, directory.name, budgets)).encode())
    return target


def _lines(records: Sequence[RunRecord], name: str, budgets: int) -> Iterable[str]:
    left = budgets - len(records)
    yield f"# {name}: {budgets} budgets{f', {left} still to come' if left else ''}\n"
    yield "| budget | winner costs | winner | better uniform | verdict | report |"
    yield "| --- | --- | --- | --- | --- | --- |"
    yield from map(_row, records)
    yield ""
    told = next((f"Scores are {record.scale.told}. " for record in records if record.scale.name), "")
    yield f"{told}Scores are those after the final training where there is one, else the search's. {FLOPS}\n"
    scored = sum(trial.score is not None for record in records for trial in record.trials)
    distinct = len({trial.widths for record in records for trial in record.trials if trial.score is not None})
    yield f"{scored} scored trials over all budgets, {distinct} distinct width vectors; none was scored twice.\n"


def _row(record: RunRecord) -> str:
    uniform = [arm for arm in record.arms if arm.name in UNIFORM]
    cells = (
        " and ".join(_limit(limit) for limit in record.budget),
        ", ".join(f"{m} {quantity(c)} ({percent(c, record.full_costs[m])})" for m, c in record.winner.costs.items()),
        _score(record, [record.winner]),
        _score(record, uniform),
        record.verdict.outcome if record.verdict else "no verdict",
        f"[{record.directory.name}]({record.directory.name}/report.html)",
    )
    return f"| {' | '.join(cells)} |"


def _limit(limit: Mapping[str, Any]) -> str:
    lower = lower_end(limit)
    least = f"{percent(lower, limit['full'])} ≤ " if lower else ""
    return f"{least}{limit['metric']} ≤ {percent(limit['upper'], limit['full'])}"


def _score(record: RunRecord, arms: Sequence[Arm]) -> str:
    """The best mean of the deciding protocol's final scores, or the best score of the search."""
    protocol = record.finals[0].protocol if record.finals else None
    finals = [[f.score for f in record.finals if (f.arm, f.protocol) == (arm.name, protocol)] for arm in arms]
    means = [sum(scores) / len(scores) for scores in finals if scores]
    scores = means or [arm.search_score for arm in arms if arm.search_score is not None]
    return score_text(max(scores), record.scale) if scores else "–"
