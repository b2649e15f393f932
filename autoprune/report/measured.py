"""What a report says of measured latency where none is limited, and what its reader must know at once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from autoprune.allocation import UNIFORM
from autoprune.report.latency import measured_how, score_of
from autoprune.report.words import Table, exact, quantity
from autoprune.verdict.record import WINNER, RunRecord

UNPRUNED = "unpruned"
NOTICEABLE = 0.02
"""Of two networks in turns, a difference of so large a share is more than the noise of measuring (`latency.AGREED`)."""

_HEADER = ("network", "score", "FLOPs", "measured ms", "times as fast as unpruned", "median ms (quartiles)")


def latencies(record: RunRecord) -> Mapping[str, Mapping[str, Any]]:
    """Name of a network -> its measurement, with or without a latency limit; empty where nothing was measured."""
    if record.latency is not None:
        return {name: final["latency"] for name, final in record.latency.get("compared", {}).items()}
    found: Mapping[str, Mapping[str, Any]] = (record.measured or {}).get("networks", {})
    return found


def headline(record: RunRecord) -> tuple[str, ...]:
    """What stands beside the verdict: how fast the winner is measured to be, and warnings where it is not faster."""
    found = latencies(record)
    if WINNER not in found or UNPRUNED not in found:
        return ()
    names = [name for name in (WINNER, *UNIFORM, UNPRUNED) if name in found]
    times = ", ".join(f"{name} {exact(found[name]['quiet'])} ms" for name in names)
    ratios = [f"{_ratio(found, name):.2f} × as fast as {_called(name)}" for name in reversed(names[1:])]
    conditions = found[WINNER]["conditions"]
    on = f"{conditions['device']}, {conditions['backend']}, {conditions['threads']} thread"
    on += f"{'s' * (conditions['threads'] > 1)}, batch {conditions['batch'] or 'of the example'}"
    told = f"Measured latency ({on}): {times}; the searched network is {', '.join(ratios)}."
    return (told, *warnings(record))


def warnings(record: RunRecord) -> Iterable[str]:
    """Where the winner takes longer than what it is to be better than, and where it is no faster than the full one.

    Under a latency limit also where uniform widths keep it by prediction only: the winner alone was held to what was
    measured.
    """
    found, limit = latencies(record), (record.latency or {}).get("limit", math.inf)
    for name in UNIFORM:
        if name in found and WINNER in found and found[name]["quiet"] > (1 + NOTICEABLE) * limit:
            yield (
                f"Warning: {name} was measured at {exact(found[name]['quiet'])} ms, above the limit of {exact(limit)} "
                f"ms, which the searched network was held to; the comparison favours {name}. Profile this device "
                f"again while nothing else runs on it."
            )
    for name in (UNPRUNED, *UNIFORM):
        if name not in found or WINNER not in found or found[name] == found[WINNER]:
            continue
        ratio = _ratio(found, name)
        budget = " and ".join(str(limit["metric"]) for limit in record.budget)
        what_next = (
            f"{budget} did not buy speed on this device; limit latency_ms instead (`autoprune latency profile`), or "
            f"keep widths to multiples that it likes (space: divisor)"
        )
        if ratio < 1 - NOTICEABLE:
            yield f"Warning: the searched network is slower than {_called(name)} ({ratio:.2f} × as fast): {what_next}."
        elif name == UNPRUNED and ratio < 1 + NOTICEABLE:
            yield f"Warning: the searched network is no faster than {_called(name)}: {what_next}."


def measured_table(record: RunRecord) -> Table:
    """Winner, uniform and unpruned network with their latencies; no rows where nothing was measured."""
    networks = (record.measured or {}).get("networks", {})
    return Table(_HEADER, tuple(_row(record, name, networks) for name in networks))


def measured_notes(record: RunRecord) -> Iterable[str]:
    """How it was measured, or why it was not."""
    facts = record.measured or {}
    if "error" in facts:
        yield f"Latency was not measured: {facts['error']}"
    if WINNER in facts.get("networks", {}):
        yield measured_how(facts["networks"][WINNER])


def _row(record: RunRecord, name: str, networks: Mapping[str, Any]) -> tuple[str, ...]:
    latency = networks[name]
    costs = next((arm.costs for arm in record.arms if arm.name == name), record.full_costs)
    low, high = latency["quartiles"]
    return (
        name,
        score_of(record, name),
        quantity(costs["flops"]) if "flops" in costs else "–",
        exact(latency["quiet"]),
        f"{networks[UNPRUNED]['quiet'] / latency['quiet']:.2f}",
        f"{exact(latency['ms'])} ({exact(low)} to {exact(high)})",
    )


def _ratio(found: Mapping[str, Mapping[str, Any]], name: str) -> float:
    """How many times as fast as this network the winner is."""
    return float(found[name]["quiet"]) / float(found[WINNER]["quiet"])


def _called(name: str) -> str:
    return "the unpruned network" if name == UNPRUNED else name
