"""What a report says of scores that are blended: of what, and what they count."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from autoprune.verdict.record import RunRecord


def blend_notes(record: RunRecord) -> Iterable[str]:
    """Nothing where scores are of one kind."""
    evaluator = _counting(record.job.get("search", {}).get("evaluator", {}))
    if not isinstance(evaluator, Mapping) or evaluator.get("name") != "blend":
        return
    settings = evaluator.get("settings", {})
    weights = settings.get("weights") or [1] * len(settings["parts"])
    told = ", ".join(
        f"{evaluator_name(part)}{f' (weight {weight:g})' if len(set(weights)) > 1 else ''}"
        for part, weight in zip(settings["parts"], weights, strict=True)
    )
    yield (
        f"Scores of the search are means of those of {told}, each in standard deviations of its scores of a few "
        f"networks drawn at random on the budget: 0 is the mean of those. They count in this run alone."
    )


def _counting(evaluator: Any) -> Any:
    """The evaluator whose scores count: of a chain, its last step."""
    while isinstance(evaluator, Mapping) and evaluator.get("name") == "chain":
        evaluator = evaluator["settings"]["steps"][-1]
    return evaluator


def evaluator_name(part: Any) -> str:
    """An evaluator as a job names it, with the proxy that it asks."""
    if not isinstance(part, Mapping):
        return str(part)
    proxy: Any = part.get("settings", {}).get("proxy")
    if proxy is None:
        return str(part["name"])
    return f"{part['name']} ({proxy if isinstance(proxy, str) else proxy['name']})"
