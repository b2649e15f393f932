"""The figures of a run: the comparison with uniform pruning, the trials by their costs and in their order."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any

import matplotlib

from autoprune.allocation import UNIFORM
from autoprune.controllers.base import Trial, TrialState
from autoprune.report import dots
from autoprune.report.drawing import COLOURS, inline_svg, score_axis
from autoprune.report.facts import BASELINES
from autoprune.report.rules import scored_by_rules
from autoprune.report.words import FLOPS, keeps
from autoprune.texts import ScoreScale, difference_text
from autoprune.verdict.record import Comparison, RunRecord

_CROSS = matplotlib.rcParamsDefault["lines.markersize"] ** 2


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

    searched, outside = _searched(record)
    rules = [trial for trial in scored_by_rules(record) if trial in searched]

    def points(trials: Iterable[Trial]) -> tuple[list[float], list[float | None]]:
        ordered = sorted((t for t in trials if metric in t.costs), key=lambda t: t.costs[metric])
        return [100 * t.costs[metric] / full for t in ordered], _shown(ordered, scale)

    def draw(axes: Any) -> None:
        _dots(axes, *points(t for t in complete if t.origin == "random_baseline"), color="random", label="random")
        _dots(axes, *points(t for t in searched if t not in rules), color="searched", label="search")
        _outside(axes, *points(outside))
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
    """Score of each trial in order, the best inside the budget so far, uniform as a line; empty without trials."""
    trials, scale = record.trials, record.search_scale
    complete = [t for t in trials if t.state is TrialState.COMPLETE]
    searched, outside = _searched(record)
    stopped = [t for t in trials if t.state is TrialState.PRUNED and not t.at_rung]
    at_rungs = [t.number for t in trials if t.at_rung]  # of another scale: no height of their own
    failed = [t.number for t in trials if t.state is TrialState.FAILED]
    uniform = [t.score for t in complete if t.origin in UNIFORM and t.score is not None]
    best = [scale.turned(b) for b in accumulate((t.score for t in searched if t.score is not None), max)]

    def draw(axes: Any) -> None:
        random = [t for t in complete if t.origin == "random_baseline"]
        _dots(axes, [t.number for t in random], _shown(random, scale), color="random", label="random")
        _dots(axes, [t.number for t in searched], _shown(searched, scale), color="searched", label="search")
        _outside(axes, [t.number for t in outside], _shown(outside, scale))
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


def _searched(record: RunRecord) -> tuple[list[Trial], list[Trial]]:
    """The complete trials that are no baselines, inside the budget and outside: some controllers walk into it."""
    found = [t for t in record.trials if t.state is TrialState.COMPLETE and t.origin not in BASELINES]
    inside = [trial for trial in found if keeps(record.budget, trial.costs)]
    return inside, [trial for trial in found if not keeps(record.budget, trial.costs)]


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


def _outside(axes: Any, x: Sequence[float], y: Sequence[float | None]) -> None:
    if x:
        style: dict[str, Any] = {"marker": "+", "color": COLOURS["muted"], "linewidths": 1.2}
        dots.scatter(axes, x, y, size=_CROSS, label="outside the budget", **style)


def _ring(axes: Any, x: Sequence[float], y: Sequence[float | None]) -> None:
    if x:
        style = {"facecolors": "none", "edgecolors": COLOURS["ink"], "linewidths": 1.8, "zorder": 5}
        axes.scatter(x[:1], y[:1], s=110, label="winner", **style)


def _shown(trials: Sequence[Trial], scale: ScoreScale) -> list[float | None]:
    """Scores as the measure counts them."""
    return [None if trial.score is None else scale.turned(trial.score) for trial in trials]
