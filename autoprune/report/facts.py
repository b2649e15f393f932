"""What a report says, as text: computed once, so that the HTML page and the Markdown file cannot disagree.

Longer than others, as every fact of a report is here and nowhere else.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import yaml

from autoprune.allocation import UNIFORM
from autoprune.controllers.base import Trial, TrialState
from autoprune.redaction import masked
from autoprune.report.blends import blend_notes
from autoprune.report.continued import continued_notes
from autoprune.report.latency import latency_notes, latency_table
from autoprune.report.measured import headline, measured_notes, measured_table
from autoprune.report.recalibration import recalibration_notes
from autoprune.report.rules import rules_notes, rules_table
from autoprune.report.rungs import rung_notes
from autoprune.report.sparsity import sparsity_notes, sparsity_table
from autoprune.report.words import (
    BEFORE_TRAINING,
    FLOPS,
    Table,
    chance,
    exact,
    limit_text,
    lower_end,
    mean_and_deviation,
    percent,
    plus_minus,
    quantity,
)
from autoprune.texts import difference_text, interval_text, last_line, score_text
from autoprune.verdict.record import ARMS, Arm, RunRecord

BASELINES = (*UNIFORM, "random_baseline")
NAMES = {
    "winner": "searched widths",
    "uniform_all": "uniform_all: one ratio for every group",
    "uniform_inner": "uniform_inner: groups that feed a residual sum stay full, one ratio for the rest",
    "random_median": "random_median: the median of random widths inside the budget",
    "flops_search": "flops_search: searched alike under the FLOPs of equal latency, in place of the latency limit",
}

_MOST_ERRORS = 50
"""Different errors that are listed; messages may hold numbers that make each its own."""

_EVENTS = (
    ("lost_workers", "worker was lost", "workers were lost"),
    ("timed_out", "evaluation passed its time limit", "evaluations passed their time limit"),
    ("out_of_memory", "evaluation passed its memory limit", "evaluations passed their memory limit"),
    ("retried", "evaluation was tried again", "evaluations were tried again"),
    (
        "unsaved_states",
        "state of a training could not be written, so that a lost worker would have cost more than an epoch",
        "states of trainings could not be written, so that a lost worker would have cost more than an epoch",
    ),
)
"""What may happen on workers: its key in run.json, and in words."""


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
        headline: what stands beside it: measured latency, and warnings.
        outcome: the verdict's outcome, or "no verdict".
        budget: the limits in words.
        notes: what a reader must know to read the numbers: evaluations, FLOPs, where final scores come from.
        arms, comparisons, latency, rules, sparsity, winners, costs, frozen, failed, provenance: tables.
        latency_notes: how the latencies were measured and what they say.
        legend: what the arms' names mean.
        widths: one row per group.
        job: the job as YAML.
    """

    title: str
    sentence: str
    headline: tuple[str, ...]
    outcome: str
    budget: str
    notes: tuple[str, ...]
    arms: Table
    legend: tuple[str, ...]
    comparisons: Table
    latency: Table
    latency_notes: tuple[str, ...]
    rules: Table
    sparsity: Table
    winners: Table
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
        headline=headline(record),
        outcome=verdict.outcome if verdict else "no verdict",
        budget=" and ".join(limit_text(limit) for limit in record.budget),
        notes=tuple(_notes(record)),
        arms=_arms(record),
        legend=tuple(_legend(record)),
        comparisons=_comparisons(record),
        latency=measured_table(record) if record.latency is None else latency_table(record),
        latency_notes=(*latency_notes(record), *measured_notes(record)),
        rules=rules_table(record),
        sparsity=sparsity_table(record),
        winners=_winners(record),
        costs=_costs(record),
        widths=_widths(record),
        frozen=Table(
            ("layer", "channels", "reason"),
            tuple((part.name, str(part.channels), part.reason) for part in record.space.frozen),
        ),
        failed=_failed(record.trials),
        provenance=Table(("what", "value"), tuple(flat(record.provenance))),
        job=yaml.safe_dump(_plain(masked(record.job)), sort_keys=False, allow_unicode=True),
    )


def _legend(record: RunRecord) -> Iterable[str]:
    for arm in record.arms:
        if arm.method:
            yield f"{arm.name}: widths that the sparsity training {arm.method} found"
        elif arm.name != "winner" and arm.name in NAMES:
            yield NAMES[arm.name]


def _without_verdict(record: RunRecord) -> str:
    uniform = [arm for arm in record.arms if arm.name in UNIFORM and arm.search_score is not None]
    scores = [
        f"{arm.name} {score_text(arm.search_score, record.search_scale)}"
        for arm in (record.winner, *uniform)
        if arm.search_score is not None
    ]
    if scores and record.own_scale is None and record.base.get("validation") is not None:
        scores.append(f"unpruned {score_text(record.base['validation'], record.scale)}")
    scale = record.search_scale
    told = f" ({scale.told})" if record.own_scale or (scale.name and not scale.higher_is_better) else ""
    scored = f" Scores on all validation data, before any final training: {', '.join(scores)}{told}." if scores else ""
    why = f", as {record.no_training}" if record.no_training else ""
    return f"No verdict: no final networks were trained{why}, so nothing is said about uniform pruning.{scored}"


def _notes(record: RunRecord) -> Iterable[str]:
    if record.scale.name:
        whose = " of the unpruned network" if record.own_scale and not record.finals else ""
        yield f"Scores{whose} are {record.scale.told}."
    if record.own_scale:
        after = "; they say nothing about those after it" if record.finals else ""
        yield f"Scores of the search are another thing: {record.own_scale.told}{after}."
    if any(arm.search_score is not None for arm in record.arms):
        yield (
            f'Scores "{BEFORE_TRAINING}" were taken after the search, by its evaluator on all validation data, of '
            f"networks that inherit as they do for that training. Trials may inherit in another way and be scored on "
            f"fewer examples: their scores do not compare with these."
        )
    counts = ", ".join(f"{arm.name} {arm.evaluations}" for arm in record.arms)
    yield f"Evaluations each network was chosen from: {counts}."
    if not record.test_split:
        yield "There is no test set: final scores come from what the search scored with, which flatters the winner."
    if not any(arm.name == "uniform_inner" for arm in record.arms):
        yield "uniform_inner is missing: the budget cannot be reached while groups that feed a residual sum stay full."
    yield from rules_notes(record)
    yield from sparsity_notes(record)
    yield from rung_notes(record)
    yield from blend_notes(record)
    yield from _kept(record)
    yield from recalibration_notes(record)
    examples = record.base.get("test_examples")
    if record.finals and examples and record.unit == "%":
        yield (
            f"The interval covers what training seeds change, on a fixed test set: "
            f"one of its {examples:,} examples is {100 / examples:.2g} points."
        )
    chosen = [t.number for t in record.trials if t.widths == record.winner.widths and t.number in record.posterior]
    for number in chosen[:1]:
        mean, deviation = record.posterior[number]
        smoothed = plus_minus(mean, deviation, record.search_scale)
        yield f"The winner is trial {number}, chosen by a smoothed model of all scores, which expects {smoothed}."
    if record.chances:
        better = "higher" if record.search_scale.higher_is_better else "lower, so better,"
        chances = " and ".join(f"{chance(found)} for {name}" for name, found in record.chances.items())
        yield (
            f"By that model, the winner scores {better} before any final training on these validation examples with a "
            f"probability of {chances}; what other examples would say is not in that."
        )
    yield from (f"{note[:1].upper()}{note[1:]}." for note in record.space.notes)
    yield from continued_notes(record)
    yield from _engine(record.provenance.get("engine"))
    if "flops" in record.full_costs:
        yield FLOPS


def _kept(record: RunRecord) -> Iterable[str]:
    """Which weights there are, for runs that kept those of every network."""
    if not (record.directory / ARMS).is_dir():
        return
    trained = "the inherited weights"
    if record.finals:
        first = record.finals[0]
        trained = f"the weights of its training by {first.protocol} with seed {first.seed}"
    yield (
        f"Every network of the table but the unpruned one is kept with {trained}: `autoprune export RUN --arm NAME "
        f"--to FOLDER` writes it."
    )


def _engine(entry: Any) -> Iterable[str]:
    """Where the evaluations ran and what was lost there; nothing for this process alone."""
    if not isinstance(entry, Mapping) or entry.get("name", "local") == "local":
        return
    workers = entry.get("workers")
    where = f" with {workers} worker{'s' * (workers != 1)}" if workers else ""
    told = [f"{entry[key]} {one if entry[key] == 1 else several}" for key, one, several in _EVENTS if entry.get(key, 0)]
    yield f"Evaluations ran on {entry['name']}{where}; {', '.join(told) or 'nothing was lost or tried again'}."


def _arms(record: RunRecord) -> Table:
    protocols = list(dict.fromkeys(final.protocol for final in record.finals))
    test = "test" if record.test_split else "final"
    header = ["network", *(f"{protocol}, {test}" for protocol in protocols), BEFORE_TRAINING, *record.full_costs]
    rows = [_arm_row(record, arm, protocols) for arm in record.arms]
    rows.append(_base_row(record, len(protocols)))
    return Table((*header, "evaluations"), tuple(rows))


def _arm_row(record: RunRecord, arm: Arm, protocols: Sequence[str]) -> tuple[str, ...]:
    scores = [[f.score for f in record.finals if f.arm == arm.name and f.protocol == p] for p in protocols]
    trained = [mean_and_deviation(values, record.scale) for values in scores]
    searched = "–" if arm.search_score is None else score_text(arm.search_score, record.search_scale)
    costs = [_cost(arm.costs.get(metric), full) for metric, full in record.full_costs.items()]
    return (arm.name, *trained, searched, *costs, str(arm.evaluations))


def _base_row(record: RunRecord, protocols: int) -> tuple[str, ...]:
    validation = record.base.get("validation")
    test = record.base.get("test") if record.test_split else validation
    scores = ["–" if value is None else score_text(value, record.scale) for value in (test, validation)]
    costs = [_cost(full, full) for full in record.full_costs.values()]
    searched = scores[1] if record.own_scale is None else "–"
    return ("unpruned", *scores[:1] * protocols, searched, *costs, "–")


def _cost(value: float | None, full: float) -> str:
    return "–" if value is None else f"{quantity(value)} ({percent(value, full)})"


def _comparisons(record: RunRecord) -> Table:
    header = ("protocol", "against", "difference", "95 % confidence interval", "seeds", "outcome")
    comparisons = record.verdict.comparisons if record.verdict else ()
    rows = [
        (
            c.protocol,
            c.rival,
            difference_text(c.difference, record.scale) + record.scale.of_difference,
            interval_text(c.low, c.high, record.scale) if math.isfinite(c.low) else "none possible",
            str(c.seeds),
            c.outcome,
        )
        for c in comparisons
    ]
    return Table(header, tuple(rows))


def _winners(record: RunRecord) -> Table:
    """The best network of each budget, where the controller searched for several."""
    rows = []
    for share, widths in record.winners.items():
        trial = next((t for t in record.trials if t.widths == widths and t.number in record.posterior), None)
        if trial is not None:
            smoothed = plus_minus(*record.posterior[trial.number], record.search_scale)
            costs = [_cost(trial.costs.get(metric), full) for metric, full in record.full_costs.items()]
            rows.append((f"{100 * share:g} %", str(trial.number), smoothed, *costs, f"winner_{share:g}.json"))
    return Table(("of the budget", "trial", "smoothed score", *record.full_costs, "widths"), tuple(rows))


def _costs(record: RunRecord) -> Table:
    limits = {limit["metric"]: limit for limit in record.budget}
    header = ("metric", "limit", "smallest possible", *(arm.name for arm in record.arms), "unpruned")
    rows = []
    for metric, full in record.full_costs.items():
        limit = limits.get(metric)
        bounds = ["none", "–"] if limit is None else [_ends(limit), exact(limit["smallest"])]
        costs = [exact(arm.costs[metric]) if metric in arm.costs else "–" for arm in record.arms]
        rows.append((metric, *bounds, *costs, exact(full)))
    return Table(header, tuple(rows))


def _ends(limit: Mapping[str, Any]) -> str:
    lower = lower_end(limit)
    return f"{exact(lower)} to {exact(limit['upper'])}" if lower else exact(limit["upper"])


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
    if len(rows) > _MOST_ERRORS:
        rest = sum(len(which) for which in list(numbers.values())[_MOST_ERRORS:])
        rows[_MOST_ERRORS:] = [(f"{len(rows) - _MOST_ERRORS} other errors, all in the ledger", str(rest), "–")]
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
