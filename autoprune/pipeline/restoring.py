"""What a resumed run, a report and an export do about files that are lost or damaged since the run wrote them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

from autoprune.config.job import load_job
from autoprune.deprecation import MovedWarning
from autoprune.errors import ConfigError, RunError, UnsetVariableError
from autoprune.pipeline.prepared import Prepared
from autoprune.space.serial import to_json
from autoprune.trials.run_directory import RunDirectory
from autoprune.trials.run_files import JOURNAL, differing, has_begun, has_checksums, journal_lines, read_run

_JOB, _SPACE, _RESULT = "job.yaml", "space.json", "result.json"


def is_whole(place: Path) -> bool:
    """Whether a run has ended and all of its files are as it wrote them: it is only read."""
    return (place / _RESULT).is_file() and has_begun(place) and not differing(place)


def job_reads(path: Path) -> bool:
    """Whether the job file of a run can be read, the same as at its start or not."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MovedWarning)
            load_job(path / _JOB, of_run=True)
    except UnsetVariableError:
        return True
    except ConfigError:
        return False
    return True


def restored(directory: RunDirectory, note: Callable[[str], None], *, edited: bool = False) -> None:
    """Put back what a run, or a family, keeps twice.

    Args:
        directory: of it, open.
        note: told what was wrong.
        edited: leave a job file that can be read as it is: whoever resumes a run may have changed its engine.
    """
    for line in directory.restore(keep=(_JOB,) if edited and job_reads(directory.path) else ()):
        note(line)


def restored_for_reading(path: Path, note: Callable[[str], None]) -> None:
    """As `restored`, for a run, or each of a family, that is going to be read; one that is worked on is left alone."""
    if not has_begun(path):
        return
    try:
        with RunDirectory.reopen(path) as directory:
            restored(directory, note)
    except RunError:  # read_record says what is wrong, where that matters
        return
    if not has_checksums(path):
        note(_unchecked(path))


def made_whole(prepared: Prepared, directory: RunDirectory) -> bool:
    """Move aside what is damaged, and make what is not made by a phase; whether there is more to do.

    Args:
        prepared: what the run works on, as at its start.
        directory: of the run; its `note` is told what was wrong.
    """
    path, ended = directory.path, (directory / _RESULT).is_file()
    if not has_checksums(path):
        directory.note(_unchecked(path))
        if not ended:
            directory.take_in_all()
        return not ended
    if ended and not differing(path):
        return False
    restored(directory, directory.note, edited=True)
    if _JOB in differing(path) and (directory / _JOB).is_file():
        directory.write_text(_JOB, (directory / _JOB).read_text())
        directory.note(f"{directory / _JOB} was changed since the run began, in nothing that its trials depend on")
    found = directory.set_aside_damaged()
    for name, wrong in found.items():
        directory.note(f"{directory / name} {wrong}: it is made again")
    if _JOB in found:
        directory.write_text(_JOB, prepared.run_inputs.job.text)
    if _SPACE in found:
        directory.write_json(_SPACE, to_json(prepared.space, origin=prepared.origin))
    return bool(found) or not ended


def lost_entries(path: Path) -> tuple[str, ...]:
    """Told where the journal has fewer lines than at the end of the last phase: it was cut, or is lost."""
    before, now = read_run(path).get(JOURNAL, 0), journal_lines(path)
    if now >= before:
        return ()
    return (f"{path / 'journal.log'} has {now} of the {before} lines that it had: what is missing is evaluated again",)


def _unchecked(path: Path) -> str:
    return f"{path} began before runs kept checksums of their files: they are taken as they are"
