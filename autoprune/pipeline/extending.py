"""A run goes on with more: more trials, more seeds, longer final trainings. What it has is kept and used."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from autoprune.config.job import Job
from autoprune.errors import RunError
from autoprune.pipeline.changes import CONTINUED, IN_PLACE, PLANNED_TRIALS, changed_keys, job_at, short
from autoprune.pipeline.continuation import FORMAT, format_of
from autoprune.pipeline.earlier import EARLIER, RESULT, keep_conclusion, take_back
from autoprune.pipeline.family import opened, parts_of
from autoprune.pipeline.fingerprints import as_begun, job_fingerprint, same_job
from autoprune.pipeline.phases.ending import ENDED_EARLY
from autoprune.pipeline.prepared import Prepared
from autoprune.pipeline.provenance import now
from autoprune.pipeline.restoring import restored
from autoprune.trials.finishing import forget_to_finish
from autoprune.trials.ledger import Ledger, has_study, open_storage
from autoprune.trials.run_directory import RunDirectory
from autoprune.trials.run_files import (
    differing,
    has_begun,
    has_checksums,
    is_there,
    read_run,
)

_OPEN = "continuing"
"""Of `run.json`, from when it is written anew until `job.yaml` is: what it was before."""

_CHANGING = ("fingerprints", CONTINUED, FORMAT, PLANNED_TRIALS, ENDED_EARLY)


def changes_in(
    job: Job, directory: RunDirectory, *, job_format: int, insisted: Collection[str] = ()
) -> dict[str, tuple[Any, Any]]:
    """What is to change in a run so that it goes on as this job; nothing where it is the same, or another one anyway.

    Args:
        job: as it is to be.
        directory: of the run, or the family.
        job_format: of the run.
        insisted: keys that the caller named; one of the search makes a search that ended early go on.
    """
    entries = read_run(directory.path)
    recorded = entries.get("fingerprints", {}).get("job")
    if same_job(recorded, job, job_format=job_format):
        again = [key for key in insisted if key.startswith("search.")] if _ended_early(directory.path) else []
        values = job.search.model_dump(mode="json")
        return {key: (values.get(key[7:]), values.get(key[7:])) for key in again}
    before = as_begun(job_at(directory.path), job_format)
    if not same_job(recorded, before, job_format=job_format):
        return {}  # somebody edited its job.yaml: what it was is not known
    return changed_keys(before, job)


def _ended_early(path: Path) -> bool:
    entries = read_run(path)
    parts = [path / name for name in entries.get("family", []) if has_begun(path / name)]
    return ENDED_EARLY in entries or any(map(_ended_early, parts))


def check_trials(prepared: Prepared, directory: RunDirectory) -> int:
    """How many trials have ended; raises RunError where more were proposed than the job now has."""
    job = prepared.run_inputs.job
    storage = open_storage(job.search.storage, directory / "journal.log")
    study = f"{directory.recorded('id')}/search"
    made = Ledger(storage, study, prepared.space).proposals() if has_study(storage, study) else []
    searched = sum(assignment.origin == "controller" for assignment, _ in made)
    if searched > job.search.trials:
        raise RunError(
            f"{directory.path} cannot go on with search.trials: {job.search.trials}, as {searched} were proposed "
            f"already and stay; give at least {searched}. To end a search with the trials so far: "
            f"`autoprune finish {shlex.quote(str(directory.path))}`"
        )
    return sum(ended for _, ended in made)


def check_undamaged(directory: RunDirectory) -> None:
    """Refuse to let a run go on that has ended and is damaged: what it had concluded would be lost.

    Raises:
        RunError: names what is damaged.
    """
    path = directory.path
    restored(directory, directory.note, edited=True)
    if not is_there(path, RESULT):
        return
    for name, wrong in differing(path).items():
        if name != "job.yaml":  # somebody may have changed its engine
            raise RunError(
                f"{path / name} {wrong}: `autoprune resume {shlex.quote(str(path))}` without changes makes it again, "
                f"then repeat this"
            )


def extend(
    directory: RunDirectory, job: Job, changed: Mapping[str, tuple[Any, Any]], *, trials: int | None = None
) -> None:
    """Let a run, or a family, go on as another job; what it had concluded is kept in `earlier/`.

    A kill in between leaves the run as it was, not ended; see `settle`.

    Args:
        directory: of the run.
        job: as it is to be; its fingerprint is recorded.
        changed: from `changes_in`; keys of `IN_PLACE` only.
        trials: how many have ended; None for a family.
    """
    path, job_format = directory.path, max(2, format_of(directory.path))  # 2 wrote stopping as it is written now
    if not has_checksums(path):
        directory.take_in_all()
    if (path / RESULT).is_file():
        keep_conclusion(path)
    searches = any(key.startswith("search.") for key in changed)
    take_back(directory, changed, searches=searches)
    entries = read_run(path)
    earlier: dict[str, Any] = entries.get(CONTINUED, {})
    written: dict[str, Any] = {
        **entries,
        "fingerprints": {**entries["fingerprints"], "job": job_fingerprint(job, job_format=job_format)},
        CONTINUED: {**earlier, str(len(earlier) + 1): _note(changed, trials)},
        FORMAT: job_format,
        _OPEN: {"was": _digest(path), "before": {key: entries.get(key) for key in _CHANGING}},
    }
    if "search.trials" in changed:
        written.setdefault(PLANNED_TRIALS, changed["search.trials"][0])
    if searches:
        written.pop(ENDED_EARLY, None)
    directory.write_run(written)
    directory.write_text("job.yaml", job.text)
    _close(directory, written)


def settle(directory: RunDirectory) -> None:
    """Take back what a kill cut short in `extend`, so that the run is as it was, not ended; or what is left of it."""
    entries = read_run(directory.path)
    if _OPEN not in entries:
        return
    if entries[_OPEN]["was"] == _digest(directory.path):  # job.yaml was not written any more
        restored = {**entries, **entries[_OPEN]["before"]}
        directory.write_text("job.yaml", (directory / "job.yaml").read_text())  # its checksum may be of the new one
        directory.write_run({k: v for k, v in restored.items() if k != _OPEN and (v is not None or k not in _CHANGING)})
        return
    _close(directory, entries)


def _close(directory: RunDirectory, entries: Mapping[str, Any]) -> None:
    forget_to_finish(directory.path)
    directory.write_run({key: value for key, value in entries.items() if key != _OPEN})


def _note(changed: Mapping[str, tuple[Any, Any]], trials: int | None) -> dict[str, Any]:
    values = {key: short(new) if old == new else f"{short(old)} → {short(new)}" for key, (old, new) in changed.items()}
    return {"at": now(), "changed": values, **({} if trials is None else {"trials": trials})}


def _digest(path: Path) -> str:
    return hashlib.sha256((path / "job.yaml").read_bytes()).hexdigest()[:16]


def follow(prepared: Prepared, directory: RunDirectory, *, insisted: Collection[str] = ()) -> None:
    """Let a run that has begun go on as the job of this call, where only what may change differs; else do nothing.

    Args:
        prepared: the job of this call, and what it works on.
        directory: of the run.
        insisted: see `changes_in`.

    Raises:
        RunError: fewer trials than were proposed; or what it had concluded cannot be kept.
    """
    settle(directory)
    job, job_format = prepared.run_inputs.job, format_of(directory.path)
    changed = changes_in(job, directory, job_format=job_format, insisted=insisted)
    others = [name for name in prepared.differing(directory.recorded("fingerprints")) if name != "job"]
    if changed and set(changed) <= set(IN_PLACE) and not others:
        check_undamaged(directory)
        extend(directory, job, changed, trials=check_trials(prepared, directory))


def follow_whole(job: Job, runs: Sequence[Prepared], directory: RunDirectory, *, insisted: Collection[str]) -> None:
    """The same for a family, before its runs follow one by one.

    Args:
        job: of this call.
        runs: one for each of its budgets.
        directory: of the family.
        insisted: see `changes_in`.

    Raises:
        RunError: as for `follow`, of any of its runs; then nothing has changed.
    """
    settle(directory)
    changed = changes_in(job, directory, job_format=format_of(directory.path), insisted=insisted)
    if not changed or not set(changed) <= set(IN_PLACE):
        return
    for prepared, place in zip(runs, parts_of(directory.path), strict=True):
        if has_begun(place):
            with opened(place) as part:
                check_undamaged(part)
                check_trials(prepared, part)
    extend(directory, job, changed)


def check_whole(path: Path, changed: Mapping[str, Any]) -> None:
    """Refuse to let a part of a family, or of a run, go on alone: the whole would not fit any more.

    Raises:
        RunError: the directory is such a part.
    """
    whole = path.absolute().parent
    whole = whole.parent if whole.name == EARLIER else whole
    if changed and has_begun(whole):
        raise RunError(
            f"{path} is a part of {whole} and cannot go on alone with other {', '.join(changed)}; give {whole}, "
            f"whose parts all go on"
        )
