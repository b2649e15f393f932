"""A run on disk: one directory that holds everything, written so that a kill at any moment loses nothing."""

from __future__ import annotations

import errno
import json
import os
import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, final

from filelock import FileLock, Timeout

from autoprune.errors import RunError
from autoprune.files import _unwritable, read_json, write_whole
from autoprune.signals import stopped_in

_MARK = "run.json"
_LOCK = ".lock"
_START = {_LOCK, "job.yaml", ".job.yaml.tmp", "space.json", ".space.json.tmp", f".{_MARK}.tmp"}
"""What a start may leave behind that was killed before it wrote run.json."""


COMPARISON = "comparison"
"""The `kind` in the record of a directory that `autoprune compare` wrote; a search has none."""


def check_search(path: Path) -> None:
    """Refuse what holds no search.

    Raises:
        RunError: it is the directory of a comparison.
    """
    if (path / _MARK).is_file() and read_json(path / _MARK).get("kind") == COMPARISON:
        raise RunError(
            f"{path} holds a comparison, no search: its pages are compare.html and compare.md, and the same "
            f"`autoprune compare` with --to {shlex.quote(str(path))} goes on with it"
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

    Build it with `create` or `reopen`. Files are written beside their place and moved there in one step.
    """

    def __init__(self, path: Path, lock: FileLock) -> None:
        self.path = path
        self._lock = lock

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
    def check_free(path: Path) -> None:
        """Find out, without writing, that `create` would fail: before long work, not after it.

        Raises:
            RunError: as for `create`.
        """
        try:
            nearest = next(place for place in (path, *path.absolute().parents) if place.exists())
            if nearest == path and not (path.is_dir() and _is_free({entry.name for entry in path.iterdir()})):
                raise RunError(
                    f"run directory {path} is in use already; `autoprune resume {shlex.quote(str(path))}` goes on with "
                    f"the run in it, or give another directory with --run-dir"
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
        if not (path / _MARK).is_file():
            raise RunError(
                f"{path} is not a run directory: it holds no {_MARK}; give the path that the search printed, "
                f"or start the run with `autoprune search`"
            )
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
        write_whole(self.path / name, text.encode())

    def update_run(self, **entries: Any) -> None:
        """Add entries to run.json."""
        known = read_json(self.path / _MARK) if (self.path / _MARK).is_file() else {}
        self.write_json(_MARK, {**known, **entries})

    def recorded(self, key: str) -> Any:
        """An entry of run.json.

        Raises:
            RunError: run.json is damaged, or has no such entry.
        """
        entries = read_json(self.path / _MARK)
        if key not in entries:
            raise RunError(f"{self.path / _MARK} is damaged (it has no {key!r}); start a new run")
        return entries[key]


def _is_free(names: set[str]) -> bool:
    return not names or (_LOCK in names and names <= _START)


def _locked(path: Path) -> FileLock:
    lock = FileLock(path / _LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise RunError(f"run directory {path} is being worked on by another process; wait for it or stop it") from error
    except OSError as error:
        raise _unwritable(path, error) from error
    return lock
