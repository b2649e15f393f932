"""What a report says of a search in rungs: how many candidates reached each, and how far their scores agree."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np

from autoprune.controllers.parts.rungs import score_table
from autoprune.report.blends import evaluator_name
from autoprune.space.groups import FloatArray
from autoprune.verdict.record import RunRecord

_LEAST_PAIRS = 5
"""Candidates that a rank correlation is told of."""


def rung_notes(record: RunRecord) -> Iterable[str]:
    """Nothing where the evaluator has no rungs."""
    trials = [trial for trial in record.trials if trial.rungs]
    if not trials:
        return
    table = score_table(trials)
    reached = np.isfinite(table).sum(axis=0).tolist()
    names = _steps(record.job, len(reached))
    told = ", ".join(f"{count} by {name}" for name, count in zip(names, reached, strict=True))
    yield (
        f"Scored in rungs: {told}, whose scores count. Candidates went on by the final score that they let "
        f"expect; those that did not are no winners."
    )
    agreements = [
        text for rung in range(len(names) - 1) if (text := _agreement(table[:, rung : rung + 2], names[rung:]))
    ]
    if agreements:
        yield f"Rank correlation (Kendall) of steps, over candidates that have both scores: {', '.join(agreements)}."


def _agreement(both: FloatArray, names: list[str]) -> str:
    from scipy.stats import kendalltau  # loads for half a second, and most runs have one rung

    given = both[np.isfinite(both).all(axis=1)]
    found = float(kendalltau(given[:, 0], given[:, 1]).statistic) if len(given) >= _LEAST_PAIRS else math.nan
    return f"{names[0]} with {names[1]} {found:.2f} ({len(given)} candidates)" if math.isfinite(found) else ""


def _steps(job: Mapping[str, object], number: int) -> list[str]:
    """What the job calls the steps; their numbers where it does not."""
    search = job.get("search")
    evaluator = search.get("evaluator") if isinstance(search, Mapping) else None
    settings = evaluator.get("settings") if isinstance(evaluator, Mapping) else None
    steps = settings.get("steps") if isinstance(settings, Mapping) else None
    if not isinstance(steps, list) or len(steps) != number:
        return [f"step {place}" for place in range(1, number + 1)]
    names = [evaluator_name(step) for step in steps]
    return [f"{name} (step {i})" if names.count(name) > 1 else name for i, name in enumerate(names, 1)]
