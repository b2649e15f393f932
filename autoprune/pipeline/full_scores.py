"""Scores on all validation data, beside the search: of the shortlist, the baselines, uniform pruning at other costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from autoprune.engines.base import Engine, Scoring
from autoprune.pipeline.family import ScoreCache
from autoprune.progress.base import Progress
from autoprune.space.groups import Widths
from autoprune.texts import last_line, score_text
from autoprune.trials.ledger import Notebook


@final
@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """How the scoring is shown.

    Attributes:
        progress: where.
        phase: under which name.
        unit: of scores, "%" or "".
    """

    progress: Progress
    phase: str
    unit: str


def score_fully(
    engine: Engine, chosen: Sequence[Widths], notebook: Notebook, cache: ScoreCache | None, shown: Shown, *, seed: int
) -> dict[Widths, float]:
    """Widths -> score on all validation data, in the order given, of those that can be scored.

    Args:
        engine: equipped.
        chosen: members of the space; equal ones count once.
        notebook: keeps each score; what it holds is not scored again.
        cache: of a family; what it holds is not scored again either.
        shown: how it is shown.
        seed: of the first evaluation; the others count up.
    """
    distinct = list(dict.fromkeys(chosen))
    shown.progress.phase(shown.phase, len(distinct))
    known = {tuple(record["widths"]): float(record["score"]) for record in notebook.read().values()}

    def keep(widths: Widths, score: float) -> None:
        notebook.write("-".join(map(str, widths)), score, {"widths": list(widths)})
        known[widths] = score

    for widths in distinct:
        remembered = None if cache is None else cache.score(widths, full=True)
        if widths not in known and remembered is not None:
            keep(widths, remembered)
        if widths in known:
            shown.progress.advance(score_text(known[widths], shown.unit))
    missing = [Scoring(widths, seed + i) for i, widths in enumerate(distinct) if widths not in known]
    for position, outcome in engine.score(missing):
        widths = missing[position].widths
        if outcome.score is None:
            shown.progress.advance(f"failed: {last_line(outcome.error)}")
            continue
        keep(widths, outcome.score)
        if cache is not None:
            cache.add(widths, outcome.score, full=True)
        shown.progress.advance(score_text(outcome.score, shown.unit))
    return {widths: known[widths] for widths in distinct if widths in known}
