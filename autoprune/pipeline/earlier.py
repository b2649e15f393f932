"""What a run had concluded before it goes on: kept in a folder of the run, and taken away where it is made anew."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from autoprune.errors import RunError
from autoprune.export.safetensors import WEIGHTS
from autoprune.files import read_json
from autoprune.trials.run_directory import RunDirectory
from autoprune.trials.run_files import FILES, MARK, REPLACED, is_there, read_run, sealed
from autoprune.verdict.record import ARMS, LATENCY, MEASURED_LATENCY, RunRecord, read_record, write_record

EARLIER = "earlier"
"""Folder of a run with what it had concluded before it went on: `earlier/1` is read and exported like a run."""

RESULT, _PAGES = "result.json", ("report.html", "report.md")
_CONCLUSION = ("job.yaml", "space.json", "base.json", LATENCY, MEASURED_LATENCY, RESULT, *_PAGES)
_FOLDERS = ("export", ARMS)


def keep_conclusion(path: Path) -> None:
    """Copy what a run has concluded, whole or not at all.

    Raises:
        RunError: there is no room; then nothing has changed.
    """
    number = 1
    while (path / EARLIER / str(number)).exists():
        number += 1
    place, made = path / EARLIER / str(number), path / EARLIER / f".{number}.tmp"
    try:
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(parents=True)
        kept = _kept_entries(path)
        for name in _CONCLUSION:
            if (path / name).is_file():
                shutil.copy2(path / name, made / name)
        for name in _FOLDERS:
            if (path / name).is_dir():
                shutil.copytree(path / name, made / name)
        (made / MARK).write_bytes(sealed(kept))
        made.rename(place)
    except OSError as error:
        shutil.rmtree(made, ignore_errors=True)
        raise RunError(
            f"{path} cannot go on: what it had concluded cannot be kept in {place}: {error.strerror or error}; make "
            f"room there, then repeat the command. Nothing was changed"
        ) from error


def check_concluded(record: RunRecord) -> None:
    """Refuse what would mix a result with the files of another one: of a run that has gone on since.

    Args:
        record: as it was when the run had ended.

    Raises:
        RunError: its directory holds another conclusion, or none; says where this one is kept.
    """
    path, told = record.directory, write_record(record)
    if is_there(path, RESULT) and write_record(read_record(path)) == told:
        return
    place = next((place for place in sorted((path / EARLIER).glob("[0-9]*")) if _concluded(place) == told), None)
    where = (
        "it is not kept"
        if place is None
        else f"it is kept in {place}, which `autoprune export` and `autoprune report` read like a run"
    )
    raise RunError(
        f"{path} has gone on since this result: {where}. The result of now is what the same search with resume=True "
        f"returns, or autoprune.resume"
    )


def _concluded(place: Path) -> dict[str, Any] | None:
    """What a run has concluded; None where that cannot be read."""
    with suppress(RunError):
        return write_record(read_record(place))
    return None


def _kept_entries(path: Path) -> dict[str, Any]:
    """The entries of run.json, with checksums of what is kept in `earlier/`."""
    entries = {key: value for key, value in read_run(path).items() if key != REPLACED}
    folders = tuple(f"{folder}/" for folder in _FOLDERS)
    files = entries.get(FILES, {})
    return {
        **entries,
        FILES: {name: own for name, own in files.items() if name in _CONCLUSION or name.startswith(folders)},
    }


def take_back(directory: RunDirectory, changed: Mapping[str, tuple[Any, Any]], *, searches: bool) -> None:
    """Take away what a run has concluded and what does not hold any more; what is written anew has no checksum.

    Args:
        directory: of the run.
        changed: key of the job -> (before, after).
        searches: the winner is chosen anew.
    """
    path, gone = directory.path, {RESULT}
    if searches:
        gone |= {LATENCY, MEASURED_LATENCY}
    elif (path / LATENCY).is_file() and "verdict.flops_search" in changed:  # others are compared
        measured = read_json(path / LATENCY)
        directory.write_json(LATENCY, {key: value for key, value in measured.items() if key != "compared"})
    if "verdict.latency" in changed:
        gone.add(MEASURED_LATENCY)
    folders = tuple(f"{folder}/" for folder in _FOLDERS)
    files = read_run(path).get(FILES, {})
    of_arms = {name for name in files if name.startswith(f"{ARMS}/") and name.endswith(f"/{WEIGHTS}")}
    before, after = changed.get("verdict.protocols", ([None], [None]))
    if before[0] != after[0]:  # weights are of the first one, which files of older versions do not tell
        gone |= {"winner.safetensors", *of_arms}
    anew = {name for name in files if name in _PAGES or name.startswith(folders)} - of_arms
    directory.forget_files(anew)
    directory.forget_files(gone, remove=True)
