"""The pages of a comparison: a table for each budget, and score over budget as a picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from markupsafe import Markup

from autoprune.files import write_whole
from autoprune.report.drawing import COLOURS, inline_svg
from autoprune.report.html import environment
from autoprune.report.words import Table, markdown_text
from autoprune.studies.comparison import CompareResult, Row
from autoprune.texts import ScoreScale, printable, score_text

HIGHLIGHTED = 4
"""So many combinations have a name and a colour in the picture."""

_TONES = ("searched", "better", "failed", "ink")


def write_pages(found: CompareResult) -> list[Path]:
    """Write compare.json, compare.md and compare.html into the directory of the comparison; returns where."""
    written = []
    for name, text in (
        ("compare.json", json.dumps(found.to_json(), indent=1, allow_nan=False)),
        ("compare.md", markdown(found)),
        ("compare.html", page(found)),
    ):
        write_whole(found.directory / name, text.encode())
        written.append(found.directory / name)
    return written


def tables(found: CompareResult) -> dict[float, Table]:
    """Budget -> its rows, the best first."""
    header = ("widths by", "channels by", "then", "score", f"{found.metric} used", "seconds")
    return {
        budget: Table(header, tuple(_cells(row, found.scale) for row in found.rows if row.budget == budget))
        for budget in found.budgets
    }


def markdown(found: CompareResult) -> str:
    """The page as markdown."""
    lines = ["# Compared right after the cut", "", f"The full network: {score_text(found.full, found.scale)}.", ""]
    lines += [f"- {markdown_text(told)}" for told in (*found.sentences, *found.notes)]
    for budget, table in tables(found).items():
        lines += ["", f"## {budget:g} % of {found.metric}", "", _row(table.header), "|---|---|---|---:|---:|---:|"]
        lines += [_row(row) for row in table.rows]
    return "\n".join(lines) + "\n"


def page(found: CompareResult) -> str:
    """The page as HTML: styles and picture are inside, nothing is fetched."""
    return (
        environment()
        .get_template("compare.html.j2")
        .render(
            title=found.directory.name,
            full=score_text(found.full, found.scale),
            found=found,
            tables=tables(found),
            picture=Markup(curves(found)),
        )
    )


def curves(found: CompareResult) -> str:
    """Score over budget: a line for each combination, the best few in colour; the full network dashed."""
    lines: dict[str, list[Row]] = {}
    for row in found.rows:
        if row.score is not None:
            lines.setdefault(row.label, []).append(row)
    ranks: dict[str, list[int]] = {}
    for budget in found.budgets:
        for rank, row in enumerate(row for row in found.rows if row.budget == budget and row.score is not None):
            ranks.setdefault(row.label, []).append(rank)
    best = sorted(lines, key=lambda label: sum(ranks[label]) / len(ranks[label]))[:HIGHLIGHTED]
    usual = next((r.label for b in found.budgets if (r := found.reference(b)) is not None), None)

    def draw(axes: Any) -> None:
        for label, rows in lines.items():
            points = sorted((row.used, found.scale.turned(row.score)) for row in rows)
            tone = "uniform" if label == usual else _TONES[best.index(label)] if label in best else "line"
            named = {"label": printable(label).replace("$", r"\$")} if tone != "line" else {}
            top = {"linewidth": 2, "zorder": 3, "markersize": 5} if named else {"linewidth": 1, "markersize": 3}
            axes.plot(*zip(*points, strict=True), marker="o", color=COLOURS[tone], **top, **named)
        axes.axhline(found.scale.turned(found.full), color=COLOURS["muted"], linewidth=1, dashes=(4, 3))
        axes.set_xlabel(f"{found.metric} used, % of the full network (dashed: its score)", parse_math=False)
        axes.set_ylabel(found.scale.told, parse_math=False)
        axes.margins(0.06, 0.08)
        axes.grid(True)

    label = "Score over budget for every combination"
    return inline_svg("compare", draw, height=500, label=label, columns=1) if lines else ""


def _cells(row: Row, scale: ScoreScale) -> tuple[str, ...]:
    error = "" if row.standard_error is None else f" ± {row.standard_error:.2g}"
    score = f"failed: {row.error}" if row.score is None else f"{score_text(row.score, scale)}{error}"
    return row.allocation, row.criterion, row.inherit, score, f"{row.used:.1f} %", f"{row.seconds:.2f}"


def _row(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(map(markdown_text, cells))} |"


def path_of(found: CompareResult) -> Path:
    """The page to open."""
    return found.directory / "compare.html"
