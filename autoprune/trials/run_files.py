"""What run.json knows of the other files of a run: their checksums; and what is kept twice to make good a damage."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from autoprune.errors import RunError
from autoprune.files import content_of, parsed_json, read_json, regular, replace_file

MARK = "run.json"
FILES, REPLACED, SEAL = "files", "replaced", "sha256"
"""Keys of run.json: checksum by file; checksum of the file before, valid until the new one is in its place; of run.json
itself, over its other entries."""

JOURNAL = "journal_lines"
"""Key of run.json: how many lines the journal had at the end of a phase; fewer are a loss that it does not show."""

REPAIRED = "repaired"
"""Key of run.json: what was lost or damaged, and what became of it."""

COPIES = ".copies"
TWICE = frozenset({MARK, "job.yaml", "space.json", "base.json", "rules.json", "latency.json", "measured_latency.json"})
"""Small files that `autoprune report` needs, or that nothing could make again."""

_DAMAGED = "damaged"


def copy_path(run: Path, name: str) -> Path:
    """Where the second copy of a file lies."""
    return run / COPIES / f"{name}.copy"


def journal_lines(run: Path) -> int:
    """How many lines the journal has; 0 where the ledger is elsewhere."""
    try:
        with regular(run / "journal.log") as file:
            return file.read().count(b"\n")
    except OSError:
        return 0


def checksum(content: bytes) -> str:
    """As `sha256sum` gives it."""
    return hashlib.sha256(content).hexdigest()


def has_begun(run: Path) -> bool:
    """Whether a run, a family or a comparison has begun in this directory."""
    return (run / MARK).is_file() or whole_mark(copy_path(run, MARK)) is not None


def read_run(run: Path) -> dict[str, Any]:
    """The entries of run.json, from its copy where it is damaged.

    Raises:
        RunError: both are.
    """
    found = whole_mark(run / MARK)
    found = whole_mark(copy_path(run, MARK)) if found is None else found
    if found is None:
        read_json(run / MARK)
        raise RunError(f"{run / MARK} is damaged (it is not as it was written); restore it, or start a new run")
    return found


def provenance_of(run: Path) -> dict[str, Any]:
    """What run.json tells of how the run was made."""
    return {key: value for key, value in read_run(run).items() if key not in (FILES, REPLACED, JOURNAL)}


def sealed(entries: Mapping[str, Any]) -> bytes:
    """The content of a run.json with these entries."""
    plain = json.loads(json.dumps({key: value for key, value in entries.items() if key != SEAL}, allow_nan=False))
    return json.dumps({**plain, SEAL: _seal(plain)}, indent=1, allow_nan=False).encode()


def differing(run: Path, names: Collection[str] | None = None) -> dict[str, str]:
    """File -> "is missing", "cannot be read" or "is not as it was written", of those that run.json knows."""
    entries = read_run(run)
    files, replaced = entries.get(FILES, {}), entries.get(REPLACED, {})
    found = {}
    for name in files if names is None else [name for name in names if name in files]:
        known = files[name]
        wrong = _wrong(run / name, known, replaced.get(name))
        if wrong:
            found[name] = wrong
    return found


def whole(run: Path, name: str) -> bytes:
    """The content of a file as the run wrote it, from its copy where it is damaged.

    Raises:
        RunError: it is missing or damaged, and so is its copy, where it has one.
    """
    path, copied = run / name, None
    wrong = differing(run, (name,)).get(name)
    if wrong is None or ((copied := copy_of(run, name)) is None and not path.is_file()):
        return content_of(path)
    if copied is None:
        raise RunError(
            f"{path} {wrong}; restore it, or `autoprune resume {shlex.quote(str(run))}` makes it again from what the "
            f"run holds"
        )
    return copied


def whole_json(run: Path, name: str) -> dict[str, Any]:
    """What a JSON file holds as the run wrote it; raises what `whole` raises."""
    return parsed_json(whole(run, name), run / name)


def is_there(run: Path, name: str) -> bool:
    """Whether the run has written a file, lost or not."""
    return (run / name).is_file() or checksum_of(run, name) is not None


def check_files(run: Path, names: tuple[str, ...], then: str) -> None:
    """Refuse what is not as the run wrote it.

    Args:
        run: its directory.
        names: of files, or of folders with a slash at the end.
        then: what to do about it.

    Raises:
        RunError: names the first one.
    """
    for name, wrong in differing(run).items():
        if name in names or any(folder.endswith("/") and name.startswith(folder) for folder in names):
            raise RunError(f"{run / name} {wrong}: {then}")


def checksum_of(run: Path, name: str) -> str | None:
    """What run.json says that a file's checksum is; None for nothing."""
    found = read_run(run).get(FILES, {}).get(name)
    return None if found is None else str(found)


def has_checksums(run: Path) -> bool:
    """Whether the run began when files had checksums."""
    return "job.yaml" in read_run(run).get(FILES, {})


def set_aside(path: Path, content: bytes | None = None) -> Path:
    """Move a damaged file into the folder `damaged` beside it, or write what it held there; returns where."""
    folder = path.parent / _DAMAGED
    folder.mkdir(exist_ok=True)
    place, number = folder / path.name, 1
    while place.exists():
        number += 1
        place = folder / f"{path.name}.{number}"
    if content is None:
        path.replace(place)
    else:
        replace_file(place, content)
    return place


def copy_of(run: Path, name: str) -> bytes | None:
    """The second copy of a file, where there is one that is as it was written."""
    entries, path = read_run(run), copy_path(run, name)
    if name not in TWICE or _wrong(path, entries.get(FILES, {}).get(name, ""), entries.get(REPLACED, {}).get(name)):
        return None
    return content_of(path)


def _wrong(path: Path, *known: str | None) -> str | None:
    try:
        return None if _checksum_of(path) in known else "is not as it was written"
    except OSError:
        return "cannot be read" if os.path.lexists(path) else "is missing"


def _checksum_of(path: Path) -> str:
    with regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _seal(entries: Mapping[str, Any]) -> str:
    return checksum(json.dumps(entries, sort_keys=True, allow_nan=False).encode())


def whole_mark(path: Path) -> dict[str, Any] | None:
    """The entries of a run.json, or of its copy; None where it is not as it was written. Older runs have no seal."""
    with suppress(RunError, UnicodeDecodeError):
        entries = read_json(path)
        if entries and (SEAL not in entries or entries.pop(SEAL) == _seal(entries)):
            return entries
    return None
