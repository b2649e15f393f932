"""What a run that went on, or was begun from another one, has not had to do again; the report tells it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from autoprune.controllers.base import Trial
from autoprune.pipeline.changes import BRANCHED, CONTINUED
from autoprune.pipeline.phases.context import RunContext
from autoprune.space.groups import Widths
from autoprune.training.protocols import make_protocol
from autoprune.trials.run_files import read_run
from autoprune.verdict.finals import final_key, key_without_epochs
from autoprune.verdict.record import Arm, FinalTraining
from autoprune.verdict.teaching import taught_protocols


def note_reuse(
    run: RunContext,
    trials: Sequence[Trial],
    rescored: Mapping[Widths, float],
    compared: Sequence[Arm],
    finals: Sequence[FinalTraining],
) -> None:
    """Count it and write it to `run.json`, beside what changed; nothing for a run that is as it began.

    Args:
        run: about to conclude.
        trials: all of them.
        rescored: what was scored on all validation data.
        compared: what the verdict compares.
        finals: the final trainings that it does so by.
    """
    entries = read_run(run.directory.path)
    if run.continuation:
        continued = dict(entries[CONTINUED])
        last = continued[str(run.continuation)]
        last = {
            **last,
            "new_trials": len(trials) - last["trials"],
            "full_scores": _full_scores(run, rescored),
            "final_trainings": _final_trainings(run, compared, finals),
            "of_final_trainings": len(_distinct(run, compared, finals)),
        }
        run.directory.update_run(**{CONTINUED: {**continued, str(run.continuation): last}})
    if run.cache is not None and BRANCHED in entries:
        taken = {
            "reused_scores": sum(t.seconds == 0 and run.cache.is_taken(t.widths, full=False) for t in trials),
            "reused_full_scores": sum(run.cache.is_taken(widths, full=True) for widths in rescored),
        }
        run.directory.update_run(**{BRANCHED: {**entries[BRANCHED], **taken}})


def _earlier(run: RunContext, part: str) -> list[tuple[str, Mapping[str, object]]]:
    """(key, record) of a notebook, of those from before the last continuation."""
    now, records = run.continuation, run.notebook(part).read()
    return [(key, record) for key, record in records.items() if record.get(CONTINUED, 0) < now]


def _full_scores(run: RunContext, rescored: Mapping[Widths, float]) -> int:
    known = {key for key, _ in _earlier(run, "re-scoring")}
    curve = len(_earlier(run, "uniform curve"))
    return curve + sum("-".join(map(str, widths)) in known for widths in rescored)


def _final_trainings(run: RunContext, compared: Sequence[Arm], finals: Sequence[FinalTraining]) -> int:
    known = {(key_without_epochs(key), record["epochs"]) for key, record in _earlier(run, "final trainings")}
    return len(known & _distinct(run, compared, finals))


def _distinct(run: RunContext, compared: Sequence[Arm], finals: Sequence[FinalTraining]) -> set[tuple[str, object]]:
    """(key, epochs) of each training; arms of equal widths share theirs."""
    arms, found = {arm.name: arm for arm in compared}, set[tuple[str, object]]()
    inherits = {chosen.label for chosen in run.job.verdict.protocols if make_protocol(chosen).inherits}
    taught = taught_protocols(run.job.verdict.protocols, run.task)
    for final in finals:
        arm = arms[final.arm]
        start = arm.start if final.protocol in inherits else ""
        key = final_key(final.protocol, final.seed, arm.widths, start, distilled=final.protocol in taught)
        found.add((key, final.epochs))
    return found
