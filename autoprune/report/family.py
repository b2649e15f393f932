"""What is said of the searches of a family, one for each budget: a table, and score over budget as a picture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from autoprune.allocation import UNIFORM
from autoprune.report.drawing import COLOURS, inline_svg, score_axis
from autoprune.report.words import FLOPS, Table, lower_end, percent, quantity
from autoprune.texts import score_text
from autoprune.verdict.record import Arm, RunRecord


def family_table(records: Sequence[RunRecord]) -> Table:
    """One row for each budget; the last column is the directory of its run."""
    header = ("budget", "winner costs", "winner", "better uniform", "unpruned", "verdict", "a smaller one is better")
    return Table((*header, "report"), tuple(_row(record, records) for record in records))


def family_notes(records: Sequence[RunRecord]) -> Iterable[str]:
    """How the scores are read."""
    told = next((f"Scores are {record.scale.told}. " for record in records if record.scale.name), "")
    yield (
        f"{told}Scores are those after the final training where there is one, else those on all validation data before "
        f"it. {FLOPS}"
    )
    if any(_better_below(record, records) for record in records):
        yield (
            "Where a smaller budget's winner is better, that network keeps the larger budget, too: take it, or let the "
            "search of the larger one go on for longer. Such leads may be noise: compare the reports' intervals."
        )
    scored = [trial for record in records for trial in record.trials if trial.score is not None]
    distinct, evaluated = {trial.widths for trial in scored}, [trial.widths for trial in scored if trial.seconds > 0]
    again = len(evaluated) - len(set(evaluated))  # handed out while the first was under way, or stopped before
    told = f"{again} evaluation{'s' * (again != 1)} repeated another" if again else "none was scored twice"
    yield f"{len(scored)} scored trials over all budgets, {len(distinct)} distinct width vectors; {told}."


def family_curve(records: Sequence[RunRecord]) -> str:
    """Score over budget of winner and better uniform, the unpruned network dashed; empty without scores."""
    scored = [record for record in records if _best(record, [record.winner]) is not None]
    if not scored:
        return ""
    first, scale = scored[0], scored[0].scale
    metric = str(first.budget[0]["metric"])
    marked = [record for record in scored if _better_below(record, records)]

    def points(arms: str, chosen: Sequence[RunRecord]) -> list[tuple[float, float]]:
        found = []
        for record in chosen:
            own = [record.winner] if arms == "winner" else _uniform(record)
            score = _best(record, own)
            if score is not None:
                found.append((100 * record.budget[0]["upper"] / record.full_costs[metric], scale.turned(score)))
        return sorted(found)

    def draw(axes: Any) -> None:
        for arms, colour, label in (("uniform", "uniform", "better uniform"), ("winner", "searched", "winner")):
            if found := points(arms, scored):
                axes.plot(*zip(*found, strict=True), color=COLOURS[colour], marker="o", linewidth=2, label=label)
        if marked:
            axes.scatter(
                *zip(*points("winner", marked), strict=True),
                s=130,
                facecolors="none",
                edgecolors=COLOURS["failed"],
                linewidths=1.8,
                zorder=5,
                label="a smaller budget's winner is better",
            )
        if (unpruned := _unpruned(first)) is not None:
            axes.axhline(scale.turned(unpruned), color=COLOURS["muted"], linewidth=1, dashes=(4, 3), label="unpruned")
        axes.set_xlabel(f"budget: {metric}, % of unpruned", parse_math=False)
        axes.set_ylabel(score_axis(scale), parse_math=False)
        axes.margins(0.06, 0.08)
        axes.grid(True)

    return inline_svg("family", draw, height=380, label=f"Score over the budget of {metric}", columns=2)


def family_page(records: Sequence[RunRecord], title: str) -> str:
    """The page of a family: styles and picture are inside, nothing is fetched."""
    environment = Environment(
        loader=PackageLoader("autoprune.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("family.html.j2").render(
        title=title, table=family_table(records), notes=[*family_notes(records)], curve=Markup(family_curve(records))
    )


def _row(record: RunRecord, records: Sequence[RunRecord]) -> tuple[str, ...]:
    scores = (_best(record, [record.winner]), _best(record, _uniform(record)), _unpruned(record))
    winner, uniform, unpruned = ("–" if score is None else score_text(score, record.scale) for score in scores)
    better = _better_below(record, records)
    return (
        _budget(record),
        ", ".join(f"{m} {quantity(c)} ({percent(c, record.full_costs[m])})" for m, c in record.winner.costs.items()),
        winner,
        uniform,
        unpruned,
        record.verdict.outcome if record.verdict else "no verdict",
        "" if better is None else f"yes: {_budget(better)}, {_told(better)}",
        record.directory.name,
    )


def _better_below(record: RunRecord, records: Sequence[RunRecord]) -> RunRecord | None:
    """The search of a smaller budget whose winner has the best score, if that is above this one's and keeps its limits.

    Only scores of one kind are compared: after the final training, or before it.
    """
    own = _best(record, [record.winner])
    found: tuple[float, RunRecord] | None = None
    for other in records:
        score = _best(other, [other.winner])
        alike = bool(other.finals) == bool(record.finals)
        if other is record or own is None or score is None or not alike or score <= own or not _below(other, record):
            continue
        if found is None or score > found[0]:
            found = (score, other)
    return None if found is None else found[1]


def _below(other: RunRecord, record: RunRecord) -> bool:
    """Whether the other's limits are as tight or tighter, and one is tighter."""
    limits = {limit["metric"]: limit["upper"] for limit in other.budget}
    pairs = [(limits.get(limit["metric"]), limit["upper"]) for limit in record.budget]
    known = [(theirs, ours) for theirs, ours in pairs if theirs is not None]
    return len(known) == len(pairs) and all(a <= b for a, b in known) and any(a < b for a, b in known)


def _budget(record: RunRecord) -> str:
    return " and ".join(_limit(limit) for limit in record.budget)


def _limit(limit: Mapping[str, Any]) -> str:
    lower = lower_end(limit)
    least = f"{percent(lower, limit['full'])} ≤ " if lower else ""
    return f"{least}{limit['metric']} ≤ {percent(limit['upper'], limit['full'])}"


def _uniform(record: RunRecord) -> list[Arm]:
    return [arm for arm in record.arms if arm.name in UNIFORM]


def _unpruned(record: RunRecord) -> float | None:
    """Of the unpruned network, on what the other scores are of."""
    on_test = record.test_split and bool(record.finals)
    found: float | None = record.base.get("test" if on_test else "validation")
    return found


def _told(record: RunRecord) -> str:
    score = _best(record, [record.winner])
    return "–" if score is None else score_text(score, record.scale)


def _best(record: RunRecord, arms: Sequence[Arm]) -> float | None:
    """The best mean of the deciding protocol's final scores, or the best score before any."""
    protocol = record.finals[0].protocol if record.finals else None
    finals = [[f.score for f in record.finals if (f.arm, f.protocol) == (arm.name, protocol)] for arm in arms]
    means = [sum(scores) / len(scores) for scores in finals if scores]
    searched = arms if record.own_scale is None else ()
    scores = means or [arm.search_score for arm in searched if arm.search_score is not None]
    return max(scores, default=None)
