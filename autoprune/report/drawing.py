"""How figures are drawn: inline SVG whose text stays text, in the page's colours, with no global state left.

Each is drawn twice, for a wide page and for a phone; the page shows the one that fits.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable
from typing import Any, TypeAlias

import matplotlib
from matplotlib.figure import Figure

from autoprune.report import dots
from autoprune.texts import ScoreScale

Draw: TypeAlias = Callable[[Any], None]

# The page defines these names for light and dark; a number of each is unique in the SVG, so it can be replaced there.
COLOURS = {
    "page": "#fefefe",
    "ink": "#1c2126",
    "muted": "#66707b",
    "line": "#d5dadf",
    "searched": "#2459a8",
    "uniform": "#c2640c",
    "random": "#97a1ab",
    "failed": "#b5382a",
    "better": "#1b7a4b",
    "worse": "#b5382b",
}
_WIDTHS = {"wide": 840, "narrow": 350}  # CSS pixels
_STYLE = {
    "svg.fonttype": "none",
    "font.size": 12,
    "font.family": "sans-serif",
    "axes.edgecolor": COLOURS["line"],
    "axes.labelcolor": COLOURS["muted"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": COLOURS["ink"],
    "xtick.color": COLOURS["line"],
    "ytick.color": COLOURS["line"],
    "xtick.labelcolor": COLOURS["muted"],
    "ytick.labelcolor": COLOURS["muted"],
    "grid.color": COLOURS["line"],
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
}


def score_axis(scale: ScoreScale, where: str = "") -> str:
    """Label of an axis of scores: measure, what it was taken on, unit, and which way is better where that is down."""
    better = "" if scale.higher_is_better else " (lower is better)"
    return f"{scale.name or 'score'}{where and f' {where}'}{f', {scale.unit}' if scale.unit else ''}{better}"


def inline_svg(name: str, draw: Draw, *, height: int, label: str, columns: int | None = None) -> str:
    """A figure, drawn for a wide page and for a phone.

    Args:
        name: of the figure, part of its identifiers.
        draw: draws on the axes it is given, in `COLOURS`.
        height: in CSS pixels.
        label: what it shows, in words.
        columns: of the legend; None: one row on a wide page, three on a phone.
    """
    return "\n".join(
        _render(f"{name}-{size}", draw, width, height, size, label, columns) for size, width in _WIDTHS.items()
    )


def _render(name: str, draw: Draw, width: int, height: int, size: str, label: str, columns: int | None) -> str:
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(width / 72, height / 72), dpi=72, layout="constrained")
        axes = figure.add_subplot()
        draw(axes)
        entries = len(axes.get_legend_handles_labels()[1])
        if entries:
            ncols = columns or (entries if size == "wide" else 3)
            figure.legend(loc="outside upper left", ncols=ncols, frameon=False, handlelength=1.2, columnspacing=1.4)
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    return _inline(buffer.getvalue(), name, size=size, label=label)


def _inline(svg: str, name: str, *, size: str, label: str) -> str:
    """Make a stand-alone SVG part of a page: own identifiers, the page's colours, no prologue, no style of its own."""
    view = re.search(r'viewBox="[^"]*"', svg)
    body = dots.shortened(svg[svg.index(">", svg.index("<svg")) + 1 :])
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>|<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{name}-", body)
    for colour, value in COLOURS.items():
        body = body.replace(value, f"var(--{colour})")
    return f'<svg class="{size}" {view[0] if view else ""} role="img" aria-label="{html.escape(label)}">{body}'
