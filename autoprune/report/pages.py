"""The pages that a run leaves for people."""

from __future__ import annotations

from autoprune.report.html import write_html
from autoprune.report.markdown import write_markdown
from autoprune.verdict.record import RunRecord


def write_reports(record: RunRecord) -> None:
    """Write report.html and report.md beside the run's data."""
    write_html(record, record.directory / "report.html")
    write_markdown(record, record.directory / "report.md")
