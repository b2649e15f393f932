"""The report as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from autoprune.files import write_whole
from autoprune.report import figures
from autoprune.report.facts import collect
from autoprune.report.rescored import rescored
from autoprune.report.words import FLOPS
from autoprune.texts import printable
from autoprune.verdict.record import RunRecord


def write_html(record: RunRecord, path: Path | str, *, note: Callable[[str], None] = lambda line: None) -> Path:
    """Write the page and return its path; styles and figures are inside, nothing is fetched."""
    page = (
        environment()
        .get_template("report.html.j2")
        .render(
            facts=collect(record),
            flops=FLOPS,
            intervals=Markup(figures.intervals(record.verdict.comparisons if record.verdict else (), record.scale)),
            tradeoff=Markup(figures.tradeoff(record)),
            rescored=Markup(rescored(record)),
            progress=Markup(figures.search_progress(record)),
        )
    )
    target = Path(path)
    write_whole(target, page.encode(), note=note)
    return target


def environment() -> Environment:
    """Templates whose texts, all of them a user's, are escaped and have nothing invisible in them."""
    return Environment(
        loader=PackageLoader("autoprune.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_visible,
    )


def _visible(value: Any) -> Any:
    return printable(value) if type(value) is str else value
