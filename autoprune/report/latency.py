"""What a report says under a latency limit: measured beside predicted, and beside the search by FLOPs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from autoprune.report.words import Table, exact, lower_end, mean_and_deviation, percent, quantity
from autoprune.texts import difference_text, interval_text, score_text
from autoprune.verdict.record import RunRecord
from autoprune.verdict.statistics import paired_comparison

METRIC = "latency_ms"
RIVAL = "flops_search"
_NAMES = {"winner": "winner (searched by latency)", RIVAL: "flops_search (searched by FLOPs)"}
_HEADER = ("network", "score", "FLOPs", "predicted ms", "measured ms", "of the limit", "median ms (quartiles)")


def latency_table(record: RunRecord) -> Table:
    """The compared networks with their latencies; no rows where nothing was measured."""
    facts = record.latency or {}
    return Table(_HEADER, tuple(_row(record, name, facts) for name in facts.get("compared", ())))


def latency_notes(record: RunRecord) -> Iterable[str]:
    """How the latencies came about, and what they say."""
    facts = record.latency
    if facts is None:
        return
    compared = facts.get("compared", {}).get("winner", facts["winner"])["latency"]
    yield measured_how(compared)
    yield _limit(record, facts)
    if facts.get("profile"):
        yield _predicted_how(facts["profile"])
    rival = next((arm for arm in record.arms if arm.name == RIVAL), None)
    if rival is not None:
        yield (
            f"flops_search was searched in the same way under the FLOPs of equal latency: those of the uniform network "
            f"that uses up the latency limit ({quantity(rival.costs['flops'])} used). Both searches share the base "
            f"network and every score."
        )
        yield from _difference(record)


def _row(record: RunRecord, name: str, facts: Mapping[str, Any]) -> tuple[str, ...]:
    final = facts["compared"][name]
    arm = next((arm for arm in record.arms if arm.name == name), None)
    costs = record.full_costs if arm is None else arm.costs
    quiet, (low, high) = final["latency"]["quiet"], final["latency"]["quartiles"]
    return (
        _NAMES.get(name, name),
        score_of(record, name),
        quantity(costs["flops"]) if "flops" in costs else "–",
        exact(final["predicted"]),
        exact(quiet),
        percent(quiet, facts["limit"]),
        f"{exact(final['latency']['ms'])} ({exact(low)} to {exact(high)})",
    )


def score_of(record: RunRecord, name: str) -> str:
    """The score of an arm, or of "unpruned", after the final training that decides, else before it."""
    first = record.finals[0].protocol if record.finals else None
    finals = [final.score for final in record.finals if (final.arm, final.protocol) == (name, first)]
    searched = {"unpruned": record.base.get("test" if record.finals and record.test_split else "validation")}
    if record.own_scale is None:
        searched |= {arm.name: arm.search_score for arm in record.arms}
    if finals:
        return mean_and_deviation(finals, record.scale)
    known = searched.get(name)
    return "–" if known is None else score_text(known, record.scale)


def measured_how(latency: Mapping[str, Any]) -> str:
    """Where, under which conditions and how often networks were measured, as one of them says it."""
    conditions, versions = latency["conditions"], latency["versions"]
    on = [conditions["backend"], f"{conditions['threads']} thread{'s' * (conditions['threads'] > 1)}"]
    on += [f"batch {conditions['batch'] or 'of the example'}", conditions["dtype"]]
    on += ["channels last"] * conditions["channels_last"] + ["batch norm folded"] * conditions["fold_batch_norm"]
    on += [f"{package} {number}" for package, number in versions.items()]
    return (
        f"Measured on {latency['machine']} ({conditions['device']}; {', '.join(on)}): all networks in turns, "
        f"{latency['repeats']} repeats each. The measured latency is the 5th percentile, what a run takes where "
        f"nothing disturbs it; how far the median is above it tells how much other programs and guests of the host did."
    )


def _limit(record: RunRecord, facts: Mapping[str, Any]) -> str:
    limit = next((one for one in record.budget if one["metric"] == METRIC), None)
    share = least = ""
    if limit is not None:
        share = f" ({percent(limit['upper'], limit['full'])} of what is predicted for the unpruned network)"
        least = f", at least {exact(lower_end(limit))} ms" if lower_end(limit) else ""
    chosen, n = facts["winner"]["latency"]["quiet"], len(facts["measured"])
    used = f"with {exact(chosen)} ms ({percent(chosen, facts['limit'])} of the limit)"
    how = f"The winner was chosen as the best of {n} measured networks that keeps it, {used}"
    if not facts["kept"]:
        how = f"None of {n} measured networks kept it; the winner is the fastest of them, {used}"
    return (
        f"Limit: {exact(facts['limit'])} ms{share}{least}. {how}; the table holds a measurement made after that choice."
    )


def _predicted_how(profile: Mapping[str, Any]) -> str:
    error = profile.get("error")
    how = "its error is not known"
    if error is not None:
        how = f"median error {100 * error['median']:.1f} % on {error['networks']} networks that its fit had not seen"
    return f"Predicted from the device profile of {profile['date']}: {how}."


def _difference(record: RunRecord) -> Iterable[str]:
    """Winner minus the winner by FLOPs, paired by seed, for each protocol."""
    for protocol in dict.fromkeys(final.protocol for final in record.finals):
        ours, theirs = (
            {f.seed: f.score for f in record.finals if (f.arm, f.protocol) == (name, protocol)}
            for name in ("winner", RIVAL)
        )
        seeds = sorted(ours.keys() & theirs.keys())
        if not seeds:
            continue
        found = paired_comparison(
            [ours[s] for s in seeds], [theirs[s] for s in seeds], protocol=protocol, rival_name=RIVAL
        )
        interval = f"95 % confidence interval {interval_text(found.low, found.high, record.scale)}"
        difference = difference_text(found.difference, record.scale) + record.scale.of_difference
        yield (
            f"Searched by latency minus searched by FLOPs, {protocol}: {difference}, "
            f"{interval if math.isfinite(found.low) else 'no interval possible'} ({found.outcome})."
        )
