"""The pages that a run leaves for people."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from autoprune.report.html import write_html
from autoprune.report.markdown import write_markdown
from autoprune.verdict.record import RunRecord


def pages(record: RunRecord) -> tuple[Path, ...]:
    """The files that `write_reports` writes."""
    return record.directory / "report.html", record.directory / "report.md"


def write_reports(record: RunRecord, *, note: Callable[[str], None] = lambda line: None) -> None:
    """Write report.html and report.md beside the run's data."""
    page, text = pages(record)
    write_html(record, page, note=note)
    write_markdown(record, text, note=note)
