"""After the search: its best and the uniforms once more, on all validation data and with a fresh seed."""

from __future__ import annotations

from collections.abc import Sequence

from autoprune.allocation import UNIFORM
from autoprune.controllers.base import Trial
from autoprune.errors import EvaluationError
from autoprune.pipeline.phases.context import RunContext
from autoprune.pipeline.phases.full_scores import score_fully
from autoprune.space.groups import Widths
from autoprune.trials.selection import shortlist, smooth

_SEED = 1_000_003


def rescore(run: RunContext, trials: Sequence[Trial]) -> dict[Widths, float]:
    """Widths -> score, of the shortlist and the uniforms.

    Raises:
        EvaluationError: none of them can be scored.
    """
    uniforms = [trial.widths for trial in trials if trial.origin in UNIFORM and trial.score is not None]
    chosen = shortlist(smooth(run.domain, trials), run.job.search.rescore, run.domain, uniforms)
    rescored = score_fully(run, [*chosen, *uniforms], phase="re-scoring", seed=_SEED)
    if not rescored:
        raise EvaluationError(
            f"none of the best {len(chosen)} candidates could be scored on all validation data, though the search "
            f"scored them; free memory or correct the score function, then resume the run"
        )
    return rescored
