"""The report as Markdown: the same facts as the page, in tables of text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from autoprune.files import write_whole
from autoprune.report.facts import Facts, collect
from autoprune.report.words import FLOPS, Table, markdown_text
from autoprune.texts import printable
from autoprune.verdict.record import RunRecord


def write_markdown(record: RunRecord, path: Path | str, *, note: Callable[[str], None] = lambda line: None) -> Path:
    """Write the file and return its path."""
    target = Path(path)
    write_whole(target, "\n".join(_lines(collect(record))).encode(), note=note)
    return target


def _lines(facts: Facts) -> Iterable[str]:
    yield f"# {markdown_text(facts.sentence)}\n"
    yield from (f"{markdown_text(line)}\n" for line in facts.headline)
    yield f"**{facts.outcome}** · run {markdown_text(facts.title)} · budget {markdown_text(facts.budget)}\n"
    yield from (*(f"- {markdown_text(note)}" for note in facts.notes), "")
    yield from _section("Networks compared", facts.arms)
    yield from (*(f"- {markdown_text(line)}" for line in facts.legend), "")
    yield from _section("Searched minus uniform", facts.comparisons, "No final networks were trained.")
    if facts.latency.rows or facts.latency_notes:
        yield from _section("Measured latency", facts.latency)
        yield from (*(f"- {markdown_text(note)}" for note in facts.latency_notes), "")
    if facts.rules.rows:
        yield from _section("One-shot rules", facts.rules)
    if facts.sparsity.rows:
        yield from _section("Sparsity trainings", facts.sparsity)
    if facts.winners.rows:
        yield from _section("The best of each budget", facts.winners)
    yield from _section("Widths", _widths(facts))
    yield from _section("Costs", facts.costs)
    yield f"{FLOPS}\n"
    yield from _section("Frozen parts", facts.frozen, "Nothing is frozen.")
    yield from _section("Failed trials", facts.failed, "No trial failed.")
    yield from _section("Environment", facts.provenance, "Not recorded.")
    fence = max(("~~~~", *(f"{found}~" for found in re.findall("~+", facts.job))), key=len)  # the job cannot end it
    yield from ("## Job\n", f"{fence}yaml", printable(facts.job.rstrip()), fence, "")


def _widths(facts: Facts) -> Table:
    rows = tuple(
        (row.name, str(row.full), str(row.searched), "–" if row.uniform is None else str(row.uniform))
        for row in facts.widths
    )
    return Table(("group", "unpruned", "searched", "uniform_all"), rows)


def _section(title: str, table: Table, otherwise: str = "") -> Iterable[str]:
    yield f"## {title}\n"
    if not table.rows:
        yield f"{otherwise}\n"
        return
    yield _row(table.header)
    yield _row("---" for _ in table.header)
    yield from map(_row, table.rows)
    yield ""


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(markdown_text(cell) for cell in cells)} |"
