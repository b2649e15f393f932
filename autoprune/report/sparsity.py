"""What a report says of the sparsity trainings: what each cost, and how its network compares with uniform pruning."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from autoprune.report.words import Table
from autoprune.texts import difference_text, interval_text, significant
from autoprune.verdict.record import RunRecord
from autoprune.verdict.statistics import against_uniform

_HEADER = ("network", "method", "passes over the data", "seconds", "goes on from", "protocol", "against", "difference")


def sparsity_table(record: RunRecord) -> Table:
    """A row for each sparsity training and protocol; no rows where the job has none."""
    facts, rows = _facts(record), []
    protocols = list(dict.fromkeys(final.protocol for final in record.finals))
    for arm in record.arms:
        if not arm.method:
            continue
        own = facts.get(arm.name, {})
        cost = [significant(own[key], 3) if key in own else "–" for key in ("passes", "seconds")]
        start = "its own weights" if arm.start else "the base network"
        for protocol in protocols or [""]:
            found = against_uniform(record.finals, protocol, arm.name)
            if found is None:
                told = ["–", "–", "–", "–"]
            else:
                interval = "no interval"
                if math.isfinite(found.low):
                    interval = interval_text(found.low, found.high, record.scale)
                size = difference_text(found.difference, record.scale) + record.scale.of_difference
                told = [found.rival, size, interval, found.outcome]
            rows.append((arm.name, arm.method, *cost, start, protocol or "–", *told))
    return Table((*_HEADER, "95 % confidence interval", "outcome"), tuple(rows))


def sparsity_notes(record: RunRecord) -> Iterable[str]:
    """Which networks had more training than their rivals."""
    facts = _facts(record)
    for arm in record.arms:
        if arm.start and "passes" in facts.get(arm.name, {}):
            passes = significant(facts[arm.name]["passes"], 3)
            yield (
                f"{arm.name} goes on from the weights that its sparsity training left, so it had {passes} passes over "
                f"the training data more than the networks beside it."
            )


def _facts(record: RunRecord) -> Mapping[str, Mapping[str, float]]:
    found = record.provenance.get("sparsity")
    return found if isinstance(found, Mapping) else {}
