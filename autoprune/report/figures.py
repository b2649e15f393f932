"""Figures as inline SVG: text stays text, colours are the page's, nothing is fetched and no global state is left.

Each figure is drawn twice, for a wide page and for a phone; the page shows the one that fits.
"""

from __future__ import annotations

import html
import io
import math
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import Any, TypeAlias

import matplotlib
from matplotlib.figure import Figure

from autoprune.allocation import UNIFORM
from autoprune.controllers.base import Trial, TrialState
from autoprune.report import dots
from autoprune.report.facts import BASELINES
from autoprune.report.rules import scored_by_rules
from autoprune.report.words import FLOPS
from autoprune.texts import ScoreScale, difference_text
from autoprune.verdict.record import Comparison, RunRecord

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
_CROSS = matplotlib.rcParamsDefault["lines.markersize"] ** 2
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


def intervals(comparisons: Sequence[Comparison], scale: ScoreScale) -> str:
    """Winner minus uniform under each protocol, with its confidence interval; empty without comparisons."""

    def draw(axes: Any) -> None:
        axes.axvline(0, color=COLOURS["uniform"], linewidth=1.5)
        axes.annotate(
            "as good as uniform",
            (0, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 4),
            textcoords="offset points",
            ha="center",
            color=COLOURS["uniform"],
        )
        for row, comparison in enumerate(reversed(comparisons)):
            _interval(axes, row, comparison, scale=scale)
        axes.set_yticks(range(len(comparisons)))
        axes.set_yticklabels([c.protocol for c in reversed(comparisons)], color=COLOURS["ink"], parse_math=False)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_ylim(-0.6, len(comparisons) - 0.3)
        ends = [(c.low, c.high) if math.isfinite(c.low) else (2 * c.difference,) for c in comparisons]
        reach = 1.1 * max(abs(end) for pair in ends for end in pair) or 1.0
        axes.set_xlim(-reach, reach)  # 0 in the middle: the eye compares both sides
        counted = f",{scale.of_difference}" if scale.unit else ""
        better = "" if scale.higher_is_better else f" ({scale.name or 'score'}, lower is better)"
        axes.set_xlabel(f"searched minus uniform{counted}{better}", parse_math=False)

    label = "Difference between searched widths and uniform pruning with 95 % confidence intervals"
    return inline_svg("intervals", draw, height=70 + 46 * len(comparisons), label=label) if comparisons else ""


def tradeoff(record: RunRecord) -> str:
    """Score in the search against the first limit's cost, for every completed trial; empty where none completed."""
    complete = [trial for trial in record.trials if trial.state is TrialState.COMPLETE]
    metric = str(record.budget[0]["metric"])
    full, scale = record.full_costs[metric], record.search_scale

    searched = [trial for trial in complete if trial.origin not in BASELINES]
    rules = [trial for trial in scored_by_rules(record) if trial in searched]

    def points(trials: Iterable[Trial]) -> tuple[list[float], list[float | None]]:
        ordered = sorted((t for t in trials if metric in t.costs), key=lambda t: t.costs[metric])
        return [100 * t.costs[metric] / full for t in ordered], _shown(ordered, scale)

    def draw(axes: Any) -> None:
        _dots(axes, *points(t for t in complete if t.origin == "random_baseline"), color="random", label="random")
        _dots(axes, *points(t for t in searched if t not in rules), color="searched", label="search")
        if rules:
            x, y = points(rules)
            axes.plot(x, y, color=COLOURS["searched"], marker="^", markersize=6, linewidth=0, label="one-shot rules")
        for origin, marker in zip(UNIFORM, ("D", "s"), strict=True):
            x, y = points(t for t in complete if t.origin == origin)
            if x:
                axes.plot(x, y, color=COLOURS["uniform"], marker=marker, markersize=7, linewidth=0, label=origin)
        _ring(axes, *points(t for t in complete if t.widths == record.winner.widths))
        axes.axvline(100 * record.budget[0]["upper"] / full, color=COLOURS["muted"], linewidth=1, dashes=(4, 3))
        axes.set_xlabel(f"{metric}, % of unpruned (dashed: limit)", parse_math=False)
        axes.set_ylabel(score_axis(scale, "in the search"), parse_math=False)
        axes.margins(0.06, 0.08)
        axes.grid(True)

    label = f"Score against {metric} for every trial. {FLOPS if metric == 'flops' else ''}"
    return inline_svg("tradeoff", draw, height=380, label=label) if complete else ""


def search_progress(record: RunRecord) -> str:
    """Score of each trial in order, the best so far, uniform as a line; empty without trials."""
    trials, scale = record.trials, record.search_scale
    complete = [t for t in trials if t.state is TrialState.COMPLETE]
    searched = [t for t in complete if t.origin not in BASELINES]
    stopped = [t for t in trials if t.state is TrialState.PRUNED and not t.at_rung]
    at_rungs = [t.number for t in trials if t.at_rung]  # of another scale: no height of their own
    failed = [t.number for t in trials if t.state is TrialState.FAILED]
    uniform = [t.score for t in complete if t.origin in UNIFORM and t.score is not None]
    best = [scale.turned(b) for b in accumulate((t.score for t in searched if t.score is not None), max)]

    def draw(axes: Any) -> None:
        random = [t for t in complete if t.origin == "random_baseline"]
        _dots(axes, [t.number for t in random], _shown(random, scale), color="random", label="random")
        _dots(axes, [t.number for t in searched], _shown(searched, scale), color="searched", label="search")
        hollow = {"facecolors": "none", "edgecolors": COLOURS["searched"]}
        if stopped:
            x, y = [t.number for t in stopped], _shown(stopped, scale)
            dots.scatter(axes, x, y, size=26, label="stopped early", page=COLOURS["page"], **hollow)
        at_bottom = {"transform": axes.get_xaxis_transform(), "clip_on": False}
        if at_rungs:
            ring = {"size": 26, "page": COLOURS["page"], **hollow, **at_bottom}
            dots.scatter(axes, at_rungs, [0.02] * len(at_rungs), label="stopped at a rung", **ring)
        if best:
            axes.step([t.number for t in searched], best, where="post", color=COLOURS["searched"], label="best so far")
        if uniform:
            line = {"color": COLOURS["uniform"], "linewidth": 1.5, "label": "better uniform"}
            axes.axhline(scale.turned(max(uniform)), **line)
        if failed:
            cross = {"marker": "x", "color": COLOURS["failed"], **at_bottom}
            dots.scatter(axes, failed, [0.02] * len(failed), size=_CROSS, label="failed", **cross)
        winner = [t for t in complete if t.widths == record.winner.widths]
        _ring(axes, [t.number for t in winner], _shown(winner, scale))
        axes.set_xlabel("trial")
        axes.set_ylabel(score_axis(scale, "in the search"), parse_math=False)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.margins(0.03, 0.08)
        axes.grid(True, axis="y")

    return inline_svg("progress", draw, height=340, label="Score of every trial in order") if trials else ""


def _interval(axes: Any, row: int, comparison: Comparison, *, scale: ScoreScale) -> None:
    colour = COLOURS.get(comparison.outcome, COLOURS["muted"])
    difference = scale.turned(comparison.difference)
    if math.isfinite(comparison.low):
        low, high = sorted((scale.turned(comparison.low), scale.turned(comparison.high)))
        axes.plot([low, high], [row, row], color=colour, linewidth=2.5, solid_capstyle="butt")
        for end in (low, high):
            axes.plot([end, end], [row - 0.1, row + 0.1], color=colour, linewidth=2.5, solid_capstyle="butt")
    else:  # no interval: the line has no ends
        axes.axhline(row, color=colour, linewidth=1.2, dashes=(2, 3))
    axes.plot([difference], [row], color=colour, marker="o", markersize=8)
    axes.annotate(
        difference_text(comparison.difference, scale),
        (difference, row),
        xytext=(0, 8),
        textcoords="offset points",
        ha="center",
        fontweight="bold",
        color=colour,
        bbox={"facecolor": COLOURS["page"], "edgecolor": "none", "pad": 0.5},
    )


def _dots(axes: Any, x: Sequence[float], y: Sequence[float | None], *, color: str, label: str) -> None:
    if x:
        dots.scatter(axes, x, y, size=26, color=COLOURS[color], alpha=0.75, linewidths=0, label=label)


def _ring(axes: Any, x: Sequence[float], y: Sequence[float | None]) -> None:
    if x:
        style = {"facecolors": "none", "edgecolors": COLOURS["ink"], "linewidths": 1.8, "zorder": 5}
        axes.scatter(x[:1], y[:1], s=110, label="winner", **style)


def _shown(trials: Sequence[Trial], scale: ScoreScale) -> list[float | None]:
    """Scores as the measure counts them."""
    return [None if trial.score is None else scale.turned(trial.score) for trial in trials]


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
