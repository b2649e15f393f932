"""What a report says of a run that went on after it was begun, was begun from another one, or ended early."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from autoprune.verdict.record import RunRecord


def continued_notes(record: RunRecord) -> Iterable[str]:
    """In which steps the run came about and what each reused; nothing for one that ran as it began."""
    entries = record.provenance
    early = entries.get("ended_early")
    if early:
        yield (
            f"The search ended early ({early['why']}): {len(record.trials)} of {early['planned']} trials; the verdict "
            f"is of these."
        )
    begun = entries.get("branched_from")
    if begun:
        yield (
            f"Begun from run {begun['run']}, with its base network; {begun.get('reused_scores', 0)} of the search's "
            f"scores are of that run, and {begun.get('reused_full_scores', 0)} of those on all validation data."
        )
    steps: Mapping[str, Mapping[str, object]] = entries.get("continued") or {}
    for step in steps.values():
        changed = step.get("changed")
        told = ", ".join(f"{key} {value}" for key, value in changed.items()) if isinstance(changed, Mapping) else ""
        yield f"Continued on {str(step.get('at'))[:10]} with {told}: {_reused(step)}."


def _reused(step: Mapping[str, object]) -> str:
    if "new_trials" not in step:  # another continuation came before it had ended
        return f"its {step.get('trials')} trials and the base network were kept"
    return (
        f"the base network, {step['trials']} trials, {step['full_scores']} scores on all validation data and "
        f"{step['final_trainings']} of {step['of_final_trainings']} final trainings were reused; {step['new_trials']} "
        f"trials are new"
    )
