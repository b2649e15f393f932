"""What a report says of the one-shot rules that the search began with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from autoprune.allocation import UNIFORM
from autoprune.controllers.base import Trial
from autoprune.report.words import AS_TRIAL, Table, percent, quantity
from autoprune.texts import last_line, score_text
from autoprune.verdict.record import RunRecord


def scored_by_rules(record: RunRecord) -> list[Trial]:
    """The trials of the job's one-shot rules, in the order of their scoring, without the uniform ones."""
    listed = record.job.get("search", {}).get("allocations", ())
    names = {given if isinstance(given, str) else given["name"] for given in listed} - set(UNIFORM)
    return [trial for trial in record.trials if trial.origin.partition("(")[0] in names]


def rules_table(record: RunRecord) -> Table:
    """One row for each rule, both uniforms first: how good its widths are before any training."""
    rows = []
    uniforms = [trial for trial in record.trials if trial.origin in UNIFORM]
    rules = scored_by_rules(record)
    for trial in (*uniforms, *rules) if rules else ():
        score = last_line(trial.error) or "–" if trial.score is None else score_text(trial.score, record.search_scale)
        costs = [
            f"{quantity(trial.costs[m])} ({percent(trial.costs[m], full)})" if m in trial.costs else "–"
            for m, full in record.full_costs.items()
        ]
        winner = "the winner" if trial.widths == record.winner.widths else ""
        rows.append((trial.origin, score, *costs, winner))
    return Table(("rule", AS_TRIAL, *record.full_costs, ""), tuple(rows))


def rules_notes(record: RunRecord) -> Iterable[str]:
    """What rules had scored beyond their own widths, and which of them are missing."""
    facts = record.provenance.get("rules")
    if not isinstance(facts, Mapping):
        return
    if facts.get("evaluations"):
        yield f"To measure their tables, the one-shot rules had {facts['evaluations']} networks scored beforehand."
    for label, reason in dict(facts.get("skipped", {})).items():
        if label != "uniform_inner":
            yield f"The one-shot rule {label} is missing: {reason}."
