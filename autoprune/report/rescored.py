"""What was scored once more after the search, as a picture: the winner and uniform pruning around the budget.

Apart from that of the trials, as the two scores do not compare: these are of networks as they inherit for the final
training, on all validation data.
"""

from __future__ import annotations

from typing import Any

from autoprune.allocation import UNIFORM
from autoprune.report.drawing import COLOURS, inline_svg, score_axis
from autoprune.report.words import FLOPS
from autoprune.verdict.record import WINNER, RunRecord

_MARKERS = {UNIFORM[0]: ("D", "uniform"), UNIFORM[1]: ("s", "uniform"), WINNER: ("o", "searched")}


def rescored(record: RunRecord) -> str:
    """Score on all validation data against the first limit's cost; empty where nothing was scored so."""
    metric, scale = str(record.budget[0]["metric"]), record.search_scale
    full = record.full_costs[metric]
    scored = [(arm.name, 100 * arm.costs[metric] / full, arm.search_score) for arm in record.arms]
    found = {name: (x, scale.turned(score)) for name, x, score in scored if name in _MARKERS and score is not None}
    curve = [(100 * point.costs[metric] / full, scale.turned(point.score)) for point in record.uniform_curve]

    def draw(axes: Any) -> None:
        if curve:
            style = {"marker": ".", "markersize": 8, "linewidth": 1.5, "label": "uniform, other budgets"}
            axes.plot(*zip(*curve, strict=True), color=COLOURS["uniform"], **style)
        for name in (name for name in _MARKERS if name in found):
            marker, colour = _MARKERS[name]
            x, y = found[name]
            axes.plot([x], [y], color=COLOURS[colour], marker=marker, markersize=8, linewidth=0, label=name)
        axes.axvline(100 * record.budget[0]["upper"] / full, color=COLOURS["muted"], linewidth=1, dashes=(4, 3))
        axes.set_xlabel(f"{metric}, % of unpruned (dashed: limit)", parse_math=False)
        axes.set_ylabel(score_axis(scale, "on all validation data"), parse_math=False)
        axes.margins(0.06, 0.08)
        axes.grid(True)

    told = "Score of winner and uniform pruning on all validation data, before any final training"
    label = f"{told}, against {metric}. {FLOPS if metric == 'flops' else ''}"
    return inline_svg("rescored", draw, height=340, label=label, columns=2) if found else ""
