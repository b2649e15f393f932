"""The search itself: a session is driven to its end, and what it found is on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

from torch import nn

from autoprune.controllers.base import Trial, TrialState
from autoprune.pipeline.changes import PLANNED_TRIALS
from autoprune.pipeline.earlier import EARLIER
from autoprune.pipeline.phases.context import RunContext
from autoprune.pipeline.phases.ending import ENDED_EARLY, SearchEnd
from autoprune.pipeline.phases.planning import planned
from autoprune.pipeline.told import trial_ended
from autoprune.space.groups import FloatArray, Widths
from autoprune.trials.assignment import score_of
from autoprune.trials.ledger import Ledger
from autoprune.trials.run_files import read_run
from autoprune.trials.session import SearchSession
from autoprune.trials.snapshots import SNAPSHOT, Snapshots
from autoprune.trials.withdrawing import withdraw_last_failures


@final
@dataclass(frozen=True, eq=False)
class Searched:
    """What a search leaves.

    Attributes:
        trials: all of them, in the order in which they were proposed.
        winners: share of the budget -> best widths, of a controller that searches for several budgets at once.
    """

    trials: tuple[Trial, ...]
    winners: Mapping[float, Widths]


def search(
    run: RunContext,
    base: nn.Module,
    scores: Sequence[FloatArray],
    found: Sequence[tuple[str, Widths]] = (),
) -> Searched:
    """All trials, given the base network and the importance of its channels.

    Args:
        run: on an equipped engine.
        base: the base network.
        scores: importances of its channels.
        found: (origin, widths) that trainings have found, scored first like those of the rules.
    """
    cache, engine = run.cache, run.engine.engine

    def remember(trial: Trial) -> None:
        score = score_of(trial)
        if cache is not None and trial.state is TrialState.COMPLETE and score is not None:
            cache.add(trial.widths, score, full=False)

    def show(trial: Trial) -> None:
        remember(trial)
        done, busy = len(session.trials), engine.busy
        run.progress.trial(trial, session.best, session.uniform, done, session.total, busy)
        run.told.trial_ended(trial_ended(trial, session, busy, run.search_scale))

    begun = read_run(run.directory.path)
    controller = run.prepared.controller(scores, learned=begun.get("begun_with"), trials=begun.get(PLANNED_TRIALS))
    over = SearchEnd(run.directory, run.job.search.time_budget)
    ledger = Ledger(run.storage, run.study("search"), run.prepared.space, note=run.progress.note)
    if not over.why and not (run.directory / EARLIER).is_dir():  # what a run has concluded from, stays
        again = withdraw_last_failures(ledger)
        if again:
            run.progress.note(f"{again} trials that failed last are evaluated again")
    session = SearchSession(
        run.domain,
        controller,
        ledger,
        plan=[*planned(run, base, scores), *found],
        trials=run.job.search.trials,
        seed=run.job.seed,
        on_trial=show,
        remembered=lambda widths: cache.scored(widths, full=False) if cache is not None else None,
        snapshots=Snapshots(run.directory / SNAPSHOT),
        over=over,
    )
    for trial in session.trials:  # of before the run had a cache, too
        remember(trial)
    run.progress.start(session.total, run.search_scale, engine.workers)
    engine.search(session)
    if over.why and len(session.trials) < session.total:
        run.directory.update_run(**{ENDED_EARLY: over.record(session.proposed, session.total)})
        run.progress.note(f"the search ends with {len(session.trials)} of {session.total} trials ({over.why})")
    run.directory.update_run(learned=controller.learned())
    winners = controller.winners()
    _write_winners(run, winners)
    return Searched(tuple(sorted(session.trials, key=lambda trial: trial.number)), winners)


def _write_winners(run: RunContext, winners: Mapping[float, Widths]) -> None:
    """One file per budget, which `autoprune cost --widths` reads: `winner_0.5.json` is the best at half of it."""
    for share, widths in winners.items():
        run.directory.write_json(f"winner_{share:g}.json", run.prepared.space.by_name(widths))
