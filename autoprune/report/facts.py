"""What a report says, as text: computed once, so that the HTML page and the Markdown file cannot disagree."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, final

import yaml

from autoprune.controllers.base import Trial, TrialState
from autoprune.search.progress import last_line, score_text
from autoprune.verdict.record import Arm, RunRecord
from autoprune.verdict.statistics import UNIFORM_ARMS, signed

BASELINES = (*UNIFORM_ARMS, "random_baseline")
FLOPS = "One multiply-add counts as one FLOP."
NAMES = {
    "winner": "searched widths",
    "uniform_all": "uniform_all: one ratio for every group",
    "uniform_inner": "uniform_inner: groups that feed a residual sum stay full, one ratio for the rest",
    "random_median": "random_median: the median of random widths inside the budget",
}


@final
@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under a header; the first column names the row."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@final
@dataclass(frozen=True, slots=True)
class WidthRow:
    """One group's widths; `uniform` is `uniform_all`'s, None where the run has no such arm."""

    name: str
    full: int
    searched: int
    uniform: int | None


@final
@dataclass(frozen=True, slots=True)
class Facts:
    """Everything the report states.

    Attributes:
        title: name of the run.
        sentence: the verdict, or why there is none.
        outcome: the verdict's outcome, or "no verdict".
        budget: the limits in words.
        notes: what a reader must know to read the numbers: evaluations, FLOPs, where final scores come from.
        arms, comparisons, costs, frozen, failed, provenance: tables.
        legend: what the arms' names mean.
        widths: one row per group.
        job: the job as YAML.
    """

    title: str
    sentence: str
    outcome: str
    budget: str
    notes: tuple[str, ...]
    arms: Table
    legend: tuple[str, ...]
    comparisons: Table
    costs: Table
    widths: tuple[WidthRow, ...]
    frozen: Table
    failed: Table
    provenance: Table
    job: str


def collect(record: RunRecord) -> Facts:
    """Put a finished run into words and tables."""
    verdict = record.verdict
    return Facts(
        title=record.directory.name,
        sentence=verdict.sentence if verdict else _without_verdict(record),
        outcome=verdict.outcome if verdict else "no verdict",
        budget=" and ".join(_limit(limit) for limit in record.budget),
        notes=tuple(_notes(record)),
        arms=_arms(record),
        legend=tuple(NAMES[arm.name] for arm in record.arms if arm.name != "winner" and arm.name in NAMES),
        comparisons=_comparisons(record),
        costs=_costs(record),
        widths=_widths(record),
        frozen=Table(
            ("layer", "channels", "reason"),
            tuple((part.name, str(part.channels), part.reason) for part in record.space.frozen),
        ),
        failed=_failed(record.trials),
        provenance=Table(("what", "value"), tuple(flat(record.provenance))),
        job=yaml.safe_dump(_plain(record.job), sort_keys=False, allow_unicode=True),
    )


def quantity(value: float) -> str:
    """A cost for the eye: 62.9 M, 855.8 k, 512, 3.52."""
    for factor, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:.1f} {suffix}"
    return f"{value:.0f}" if value == round(value) else f"{value:.3g}"


def exact(value: float) -> str:
    """A cost with every digit."""
    return f"{value:,.0f}" if value == round(value) else f"{value:,.4g}"


def percent(value: float, full: float) -> str:
    """Share of the full network, or a dash where that costs nothing."""
    return f"{100 * value / full:.1f} %" if full else "–"


def _limit(limit: Mapping[str, Any]) -> str:
    share = percent(limit["upper"], limit["full"])
    return f"{limit['metric']} ≤ {quantity(limit['upper'])} ({share} of {quantity(limit['full'])})"


def _without_verdict(record: RunRecord) -> str:
    uniform = [arm for arm in record.arms if arm.name in UNIFORM_ARMS and arm.search_score is not None]
    scores = [
        f"{arm.name} {score_text(arm.search_score, record.unit)}"
        for arm in (record.winner, *uniform)
        if arm.search_score is not None
    ]
    scored = f" Scores of the search, before any training: {', '.join(scores)}." if scores else ""
    return f"No verdict: no final networks were trained, so nothing is said about uniform pruning.{scored}"


def _notes(record: RunRecord) -> Iterable[str]:
    counts = ", ".join(f"{arm.name} {arm.evaluations}" for arm in record.arms)
    yield f"Evaluations each network was chosen from: {counts}."
    if not record.test_split:
        yield "There is no test set: final scores come from what the search scored with, which flatters the winner."
    if not any(arm.name == "uniform_inner" for arm in record.arms):
        yield "uniform_inner is missing: the budget cannot be reached while groups that feed a residual sum stay full."
    examples = record.base.get("test_examples")
    if record.finals and examples and record.unit == "%":
        yield (
            f"The interval covers what training seeds change, on a fixed test set: "
            f"one of its {examples:,} examples is {100 / examples:.2g} points."
        )
    chosen = [t.number for t in record.trials if t.widths == record.winner.widths and t.number in record.posterior]
    for number in chosen[:1]:
        mean, deviation = record.posterior[number]
        smoothed = _plus_minus(mean, deviation, record.unit)
        yield f"The winner is trial {number}, chosen by a smoothed model of all scores, which expects {smoothed}."
    if record.chances:
        chances = " and ".join(f"{100 * chance:.0f} % for {name}" for name, chance in record.chances.items())
        yield f"By that model, the winner scores higher before any final training with a probability of {chances}."
    if "flops" in record.full_costs:
        yield FLOPS


def _arms(record: RunRecord) -> Table:
    protocols = list(dict.fromkeys(final.protocol for final in record.finals))
    test = "test" if record.test_split else "final"
    header = ["network", *(f"{protocol}, {test}" for protocol in protocols), "in search", *record.full_costs]
    rows = [_arm_row(record, arm, protocols) for arm in record.arms]
    rows.append(_base_row(record, len(protocols)))
    return Table((*header, "evaluations"), tuple(rows))


def _arm_row(record: RunRecord, arm: Arm, protocols: Sequence[str]) -> tuple[str, ...]:
    scores = [[f.score for f in record.finals if f.arm == arm.name and f.protocol == p] for p in protocols]
    trained = [_mean_and_deviation(values, record.unit) for values in scores]
    searched = "–" if arm.search_score is None else score_text(arm.search_score, record.unit)
    costs = [_cost(arm.costs.get(metric), full) for metric, full in record.full_costs.items()]
    return (arm.name, *trained, searched, *costs, str(arm.evaluations))


def _base_row(record: RunRecord, protocols: int) -> tuple[str, ...]:
    test, validation = record.base.get("test"), record.base.get("validation")
    scores = ["–" if value is None else score_text(value, record.unit) for value in (test, validation)]
    costs = [_cost(full, full) for full in record.full_costs.values()]
    return ("unpruned", *scores[:1] * protocols, scores[1], *costs, "–")


def _cost(value: float | None, full: float) -> str:
    return "–" if value is None else f"{quantity(value)} ({percent(value, full)})"


def _mean_and_deviation(scores: Sequence[float], unit: str) -> str:
    if len(scores) < 2:
        return score_text(scores[0], unit) if scores else "–"
    return _plus_minus(fmean(scores), stdev(scores), unit)


def _plus_minus(mean: float, deviation: float, unit: str) -> str:
    return f"{mean:.2f} ± {deviation:.2f} %" if unit == "%" else f"{mean:.4g} ± {deviation:.2g}"


def _comparisons(record: RunRecord) -> Table:
    header = ("protocol", "against", "difference", "95 % confidence interval", "seeds", "outcome")
    comparisons = record.verdict.comparisons if record.verdict else ()
    points = " points" if record.unit == "%" else ""
    rows = [
        (
            c.protocol,
            c.rival,
            signed(c.difference, record.unit) + points,
            f"{signed(c.low, record.unit)} to {signed(c.high, record.unit)}"
            if math.isfinite(c.low)
            else "none possible",
            str(c.seeds),
            c.outcome,
        )
        for c in comparisons
    ]
    return Table(header, tuple(rows))


def _costs(record: RunRecord) -> Table:
    limits = {limit["metric"]: limit for limit in record.budget}
    header = ("metric", "limit", "smallest possible", *(arm.name for arm in record.arms), "unpruned")
    rows = []
    for metric, full in record.full_costs.items():
        limit = limits.get(metric)
        bounds = ["none", "–"] if limit is None else [exact(limit["upper"]), exact(limit["smallest"])]
        costs = [exact(arm.costs[metric]) if metric in arm.costs else "–" for arm in record.arms]
        rows.append((metric, *bounds, *costs, exact(full)))
    return Table(header, tuple(rows))


def _widths(record: RunRecord) -> tuple[WidthRow, ...]:
    uniform = next((arm.widths for arm in record.arms if arm.name == "uniform_all"), None)
    return tuple(
        WidthRow(group.name, group.width, record.winner.widths[i], uniform[i] if uniform else None)
        for i, group in enumerate(record.space.groups)
    )


def _failed(trials: Iterable[Trial]) -> Table:
    numbers = defaultdict(list)
    for trial in trials:
        if trial.state is TrialState.FAILED:
            numbers[last_line(trial.error) or "no error was kept"].append(str(trial.number))
    rows = [
        (error, str(len(which)), ", ".join(which[:8]) + (", …" if len(which) > 8 else ""))
        for error, which in numbers.items()
    ]
    return Table(("error", "count", "trials"), tuple(rows))


def flat(value: Any, name: str = "") -> Iterable[tuple[str, str]]:
    """Nested mappings as rows; their keys joined by dots."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from flat(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _plain(value: Any) -> Any:
    """The value as JSON knows it: what YAML cannot name (paths, enums, tuples) becomes text or lists."""
    return json.loads(json.dumps(value, default=lambda item: dict(item) if isinstance(item, Mapping) else str(item)))
