"""Scores on all validation data, beside the search: of the shortlist, the baselines, uniform pruning at other costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from autoprune.engines.base import Scoring
from autoprune.pipeline.phases.context import RunContext
from autoprune.space.groups import Widths
from autoprune.texts import last_line, score_text


def score_fully(
    run: RunContext,
    chosen: Sequence[Widths],
    *,
    phase: str,
    seed: int,
    failed: Callable[[str], None] = lambda error: None,
) -> dict[Widths, float]:
    """Widths -> score on all validation data, in the order given, of those that can be scored.

    What the run has noted, or the family has in its cache, is not scored again.

    Args:
        run: on an equipped engine.
        chosen: members of the space; equal ones count once.
        phase: under which name it is shown and noted.
        seed: beside the job's, of the first evaluation; the others count up.
        failed: given the traceback of each that cannot be scored.
    """
    notebook, cache, scale = run.notebook(phase), run.cache, run.search_scale
    distinct = list(dict.fromkeys(chosen))
    run.progress.phase(phase, len(distinct))
    known = {tuple(record["widths"]): float(record["score"]) for record in notebook.read().values()}

    def keep(widths: Widths, score: float) -> None:
        notebook.write("-".join(map(str, widths)), score, {"widths": list(widths)})
        known[widths] = score

    for widths in distinct:
        remembered = None if cache is None else cache.score(widths, full=True)
        if widths not in known and remembered is not None:
            keep(widths, remembered)
        if widths in known:
            if cache is not None:
                cache.add(widths, known[widths], full=True)
            run.progress.advance(score_text(known[widths], scale))
    first = run.job.seed + seed
    missing = [Scoring(widths, first + i) for i, widths in enumerate(distinct) if widths not in known]
    for position, outcome in run.engine.engine.score(missing):
        widths = missing[position].widths
        if outcome.score is None:
            run.progress.advance(f"failed: {last_line(outcome.error)}")
            failed(outcome.error or "")
            continue
        keep(widths, outcome.score)
        if cache is not None:
            cache.add(widths, outcome.score, full=True)
        run.progress.advance(score_text(outcome.score, scale))
    return {widths: known[widths] for widths in distinct if widths in known}
