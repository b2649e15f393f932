"""The overview of a family of searches: one row for each budget, as Markdown and as a page beside the runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import quote

from autoprune.files import write_whole
from autoprune.report.family import family_notes, family_page, family_table
from autoprune.report.words import markdown_text
from autoprune.verdict.record import RunRecord


def write_overview(records: Sequence[RunRecord], directory: Path, *, budgets: int) -> Path:
    """Write `overview.md` and, with a chart of score over budget, `overview.html`; return the path of the first.

    Args:
        records: the runs that have ended, in the order of the budgets.
        directory: of the family.
        budgets: how many there are.
    """
    left = budgets - len(records)
    title = f"{directory.name}: {budgets} budgets{f', {left} still to come' if left else ''}"
    target = directory / "overview.md"
    write_whole(target, "\n".join(_lines(records, title)).encode())
    write_whole(directory / "overview.html", family_page(records, title).encode())
    return target


def _lines(records: Sequence[RunRecord], title: str) -> Iterable[str]:
    table = family_table(records)
    yield f"# {markdown_text(title)}\n"
    yield f"| {' | '.join(table.header)} |"
    yield f"|{' --- |' * len(table.header)}"
    for *cells, name in table.rows:
        row = (*map(markdown_text, cells), f"[{markdown_text(name)}]({quote(name)}/report.html)")
        yield f"| {' | '.join(row)} |"
    yield ""
    yield "The same with a chart of score over budget: [overview.html](overview.html)\n"
    yield from (f"{markdown_text(note)}\n" for note in family_notes(records))
