"""After the search: its best and all that they are compared with once more, on all validation data, by a fresh seed."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from autoprune.allocation import UNIFORM
from autoprune.controllers.base import Trial
from autoprune.errors import EvaluationError, told_of_traceback
from autoprune.pipeline.phases.context import RunContext
from autoprune.pipeline.phases.full_scores import score_fully
from autoprune.space.groups import Widths
from autoprune.trials.selection import median_trial, shortlist, sure_leads
from autoprune.verdict.baselines import RANDOM

_SEED = 1_000_003


def rescore(run: RunContext, trials: Sequence[Trial], found: Collection[Widths] = ()) -> dict[Widths, float]:
    """Widths -> score, of the shortlist and of every network that the winner is compared with.

    All of them, since a trial's score may be of fewer examples, or of a network that inherited in another way: beside
    the others it would not compare.

    Args:
        run: on an equipped engine.
        trials: of the search.
        found: widths that sparsity trainings have found.

    Raises:
        EvaluationError: none of them can be scored.
    """
    uniforms = [trial.widths for trial in trials if trial.origin in UNIFORM and trial.score is not None]
    chosen = shortlist(sure_leads(run.domain, trials, uniforms), run.job.search.rescore, run.domain, uniforms)
    median = median_trial([trial for trial in trials if trial.origin == RANDOM])
    others = [*uniforms, *([] if median is None else [median.widths]), *found]
    failed: list[str] = []
    rescored = score_fully(run, [*chosen, *others], phase="re-scoring", seed=_SEED, failed=failed.append)
    if not rescored:
        why = f"{told_of_traceback(failed[0])}; " if failed else ""
        raise EvaluationError(
            f"{why}none of the best {len(chosen)} candidates could be scored on all validation data, though the search "
            f"scored them; free memory or correct the score function, then resume the run"
        )
    return rescored
