"""A run on disk: one directory that holds everything, written so that a kill at any moment loses nothing.

Longer than others, as it is the one door to the files of a run.
"""

from __future__ import annotations

import errno
import json
import os
import shlex
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Self, final

from filelock import FileLock, Timeout

from autoprune.errors import BusyRunError, RunError
from autoprune.files import _unwritable, read_json, write_whole
from autoprune.redaction import masked
from autoprune.signals import stopped_in
from autoprune.trials.finishing import REQUEST
from autoprune.trials.run_files import (
    COPIES,
    FILES,
    MARK,
    REPAIRED,
    REPLACED,
    TWICE,
    checksum,
    copy_of,
    copy_path,
    differing,
    has_begun,
    read_run,
    sealed,
    set_aside,
    whole_mark,
)
from autoprune.trials.snapshots import SNAPSHOT

_LOCK = ".lock"
_START = {_LOCK, COPIES, "job.yaml", ".job.yaml.tmp", "space.json", ".space.json.tmp", f".{MARK}.tmp"}
"""What a start may leave behind that was killed before it wrote run.json."""


_CHECKSUMS = (FILES, REPLACED)

COMPARISON = "comparison"
"""The `kind` in the record of a directory that `autoprune compare` wrote; a search has none."""


def check_search(path: Path) -> None:
    """Refuse what holds no search.

    Raises:
        RunError: it is the directory of a comparison.
    """
    if has_begun(path) and read_run(path).get("kind") == COMPARISON:
        raise RunError(
            f"{path} holds a comparison, no search: its pages are compare.html and compare.md, and the same "
            f"`autoprune compare` with --to {shlex.quote(str(path))} goes on with it"
        )


def check_begun(path: Path) -> None:
    """Refuse what is no run, family or comparison.

    Raises:
        RunError: nothing has begun there, or its run.json is damaged.
    """
    if not has_begun(path):
        read_json(path / MARK) if (path / MARK).is_file() else None
        raise RunError(
            f"{path} is not a run directory: it holds no {MARK}; give the path that the search printed, or start the "
            f"run with `autoprune search`"
        )


def check_there(path: Path) -> None:
    """Find out that a run has lost its directory before more is evaluated in vain.

    Raises:
        RunError: it is gone, also at a second look.
    """
    for pause in (0.0, 1.0):
        time.sleep(pause)
        try:
            path.stat()
        except FileNotFoundError:
            continue
        except OSError:  # a network that is away comes again
            return
        return
    raise RunError(
        f"run directory {path} is gone, and what ends now could not be kept. If it was moved, `autoprune resume` goes "
        f"on at its new place"
    )


@final
class RunDirectory:
    """An open run directory, locked against a second driver.

    Build it with `create` or `reopen`. Files are written beside their place and moved there in one step, and run.json
    has the checksum of each before it is there: what has another one is damaged, never half done.

    Attributes:
        path: of it.
        note: told when writing waits for room, and when it goes on.
    """

    def __init__(self, path: Path, lock: FileLock) -> None:
        self.path = path
        self.note: Callable[[str], None] = lambda line: None
        self._lock = lock
        self._unlisted: dict[str, str] = {}  # written before run.json is there

    @classmethod
    def create(cls, path: Path) -> Self:
        """Make a new run directory.

        Raises:
            RunError: it holds a run or other files already, or cannot be written.
        """
        cls.check_free(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(path, error) from error
        return cls(path, _locked(path))

    @staticmethod
    def check_free(path: Path, *, resume: str | None = None) -> None:
        """Find out, without writing, that `create` would fail: before long work, not after it.

        Args:
            path: where a run is to begin.
            resume: how whoever asks goes on with a run; None: by command.

        Raises:
            RunError: as for `create`.
        """
        try:
            nearest = next(place for place in (path, *path.absolute().parents) if place.exists())
            if nearest == path and not (path.is_dir() and _is_free({entry.name for entry in path.iterdir()})):
                other = "--run-dir" if resume is None else "run_dir"
                raise RunError(
                    f"run directory {path} is in use already; "
                    f"`{resume or f'autoprune resume {shlex.quote(str(path))}'}` goes on with the run in it, or give "
                    f"another directory with {other}"
                )
        except OSError as error:
            raise _unwritable(path, error) from error
        if not nearest.is_dir():
            raise _unwritable(path, NotADirectoryError(errno.ENOTDIR, f"{nearest} is a file"))
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise _unwritable(path, PermissionError(errno.EACCES, f"no permission to write in {nearest}"))

    @classmethod
    def reopen(cls, path: Path) -> Self:
        """Open the directory of an earlier run to go on with it.

        Raises:
            RunError: there is no run in it, another process works on it, or it cannot be written.
        """
        check_begun(path)
        return cls(path, _locked(path))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._lock.release()
        for part in raised:
            if isinstance(part, BaseException):
                stopped_in(self.path, part)

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def write_json(self, name: str, data: Mapping[str, Any]) -> None:
        """Write a JSON file in one step."""
        self.write_text(name, json.dumps(data, indent=1, allow_nan=False))

    def write_text(self, name: str, text: str) -> None:
        """Write a text file; raises what `write_whole` raises."""
        self.write_bytes(name, text.encode())

    def write_bytes(self, name: str, content: bytes) -> None:
        """Write a file, its checksum first."""
        self._list({name: checksum(content)})
        self._copy(name, content)
        write_whole(self.path / name, content, note=self.note, make_folder="/" in name)

    def update_run(self, **entries: Any) -> None:
        """Add entries to run.json."""
        known = read_run(self.path) if has_begun(self.path) else {}
        files = {**known.get(FILES, {}), **self._unlisted}
        self._write_run({**known, **entries, FILES: files})
        self._unlisted.clear()

    def write_run(self, entries: Mapping[str, Any]) -> None:
        """Write run.json anew; checksums of files are those that it has."""
        known = read_run(self.path)
        kept = {key: known[key] for key in _CHECKSUMS if key in known}
        self._write_run({**{key: value for key, value in entries.items() if key not in _CHECKSUMS}, **kept})

    def forget_files(self, names: Iterable[str], *, remove: bool = False) -> None:
        """Drop the checksums of files that are no longer true, or remove the files, too; they may be missing.

        Raises:
            RunError: one cannot be removed.
        """
        gone, known = set(names), read_run(self.path)
        kept = {key: {name: own for name, own in known.get(key, {}).items() if name not in gone} for key in _CHECKSUMS}
        if any(len(kept[key]) < len(known.get(key, {})) for key in _CHECKSUMS):
            self._write_run({**known, **kept})
        try:
            for name in gone if remove else ():
                (self.path / name).unlink(missing_ok=True)
                copy_path(self.path, name).unlink(missing_ok=True)
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def recorded(self, key: str) -> Any:
        """An entry of run.json.

        Raises:
            RunError: run.json is damaged, or has no such entry.
        """
        entries = read_run(self.path)
        if key not in entries:
            raise RunError(f"{self.path / MARK} is damaged (it has no {key!r}); start a new run")
        return entries[key]

    def list_files(self, paths: Iterable[Path]) -> None:
        """Take checksums of files in it that others have written."""
        self._list({path.relative_to(self.path).as_posix(): checksum(path.read_bytes()) for path in paths})

    def take_in_all(self) -> None:
        """Take checksums of what a run of an older version has written so far, which is taken as it is."""
        journals = {"journal.log", "scores.log", _LOCK, MARK, REQUEST, SNAPSHOT}
        top = [path for path in self.path.iterdir() if path.is_file() and path.name not in journals]
        folders = [self.path / "export", self.path / "arms"]
        self.update_run()
        self.list_files([*top, *(path for folder in folders for path in folder.rglob("*") if path.is_file())])
        for path in top:
            self._copy(path.name, path.read_bytes())

    def restore(self, *, keep: Iterable[str] = ()) -> list[str]:
        """Put what is kept twice back in its place where it is lost or damaged; a damaged one goes into `damaged`.

        Args:
            keep: files that are left as they are.

        Returns:
            What was wrong and what became of it.
        """
        told = []
        if whole_mark(self.path / MARK) is None:
            wrong = "is not as it was written" if (self.path / MARK).is_file() else "is missing"
            told.append(self._put_back(MARK, sealed(read_run(self.path)), wrong))
        for name, wrong in differing(self.path).items():
            if name not in keep and (copied := copy_of(self.path, name)) is not None:
                told.append(self._put_back(name, copied, wrong))
        if told:
            self.update_run(**{REPAIRED: [*read_run(self.path).get(REPAIRED, []), *told]})
        return told

    def set_aside_damaged(self) -> dict[str, str]:
        """Move away what is not as the run wrote it, so that it is made again; name -> what is wrong with it."""
        found = differing(self.path)
        for name in found:
            self._aside(self.path / name)
        return found

    def _copy(self, name: str, content: bytes) -> None:
        """Keep a small file twice, but a secret not once more than somebody has written it down."""
        text = content.decode(errors="replace")
        if name in TWICE and masked(text) == text:
            write_whole(copy_path(self.path, name), content, note=self.note, make_folder=True)

    def _aside(self, path: Path) -> Path | None:
        try:
            return set_aside(path) if os.path.lexists(path) else None
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def _put_back(self, name: str, content: bytes, wrong: str) -> str:
        path = self.path / name
        kept = self._aside(path)
        where = "" if kept is None else f"; as it was it lies in {kept}"
        write_whole(path, content, note=self.note)
        return f"{path} {wrong}: its copy is in its place{where}"

    def _list(self, checksums: Mapping[str, str]) -> None:
        if not has_begun(self.path):
            self._unlisted |= checksums
            return
        known = read_run(self.path)
        files, replaced = known.get(FILES, {}), known.get(REPLACED, {})
        new = {name: found for name, found in checksums.items() if files.get(name) != found}
        if new:
            before = {name: files[name] for name in new if name in files}
            self._write_run({**known, FILES: {**files, **new}, REPLACED: {**replaced, **before}})

    def _write_run(self, entries: Mapping[str, Any]) -> None:
        content = sealed({key: value for key, value in entries.items() if key != REPLACED or value})
        write_whole(self.path / MARK, content, note=self.note)
        write_whole(copy_path(self.path, MARK), content, note=self.note, make_folder=True)


def _is_free(names: set[str]) -> bool:
    return not names or (_LOCK in names and names <= _START)


def _locked(path: Path) -> FileLock:
    lock = FileLock(path / _LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise BusyRunError(
            f"run directory {path} is being worked on by another process; wait for it or stop it"
        ) from error
    except OSError as error:
        raise _unwritable(path, error) from error
    return lock
