"""Files of a run: written whole or not at all, and waited for while storage refuses writes for a while."""

from __future__ import annotations

import errno
import json
import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from io import BufferedReader
from pathlib import Path
from typing import Any, TypeVar

from autoprune.errors import RunError
from autoprune.redaction import masked

T = TypeVar("T")

PATIENCE = 300.0
"""Seconds after which storage is given up."""

_FIRST_WAIT, _LONGEST_WAIT = 0.05, 10.0
_LASTING = (errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG)


def lasting(error: Exception) -> bool:
    """Whether it is in vain to wait: no permission, or no such folder."""
    return isinstance(error, OSError) and error.errno in _LASTING


def patiently(
    action: Callable[[], T],
    what: str,
    errors: tuple[type[Exception], ...],
    *,
    note: Callable[[str], None] = lambda line: None,
    patience: float | None = None,
) -> T:
    """Return what `action` returns, calling it again, after longer and longer waits, as long as it raises `errors`.

    Args:
        action: may be repeated.
        what: names the storage in messages.
        errors: that may pass.
        note: told once that writing waits, and once that it goes on.
        patience: seconds in all; `PATIENCE` by default.

    Raises:
        RunError: it still fails after that time.
        OSError: of a kind that does not pass.
    """
    began, wait, limit = time.monotonic(), _FIRST_WAIT, PATIENCE if patience is None else patience
    while True:
        try:
            result = action()
        except errors as error:
            if lasting(error):
                raise
            if time.monotonic() - began + wait > limit:
                reason = str(error).strip().partition("\n")[0] or type(error).__name__
                raise RunError(
                    f"{what} could not be written for {limit:.0f} s: {reason}. What was written before is kept: make "
                    f"room or restore the connection, then resume the run"
                ) from error
            if wait == _FIRST_WAIT:
                note(f"{what} cannot be written ({type(error).__name__}: {masked(str(error))}); trying again")
            time.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT)
        else:
            if wait > _FIRST_WAIT:
                note(f"{what} can be written again")
            return result


def replace_file(path: Path, content: bytes) -> None:
    """Write a file beside its place and move it there in one step, so that it is never seen half written.

    Its content is on the disk before it is in its place, and is there still after a loss of power. What is left of an
    earlier time beside its place is removed, not written to: it might be a pipe, or a link to somewhere else.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.unlink(missing_ok=True)
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            synced(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def synced(descriptor: int) -> None:
    """Wait until what was written to an open file or folder is on the disk."""
    os.fsync(descriptor)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, where the file system can tell."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # no permission to read it, or a system that opens no folders
        return
    try:
        with suppress(OSError):  # the file itself is on the disk
            synced(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Wait until all files below a folder are on the disk.

    Raises:
        OSError: one cannot be written.
    """
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                synced(file.fileno())
        else:
            sync_folder(path)
    sync_folder(folder)


def make_folder(folder: Path, *, note: Callable[[str], None] = lambda line: None) -> None:
    """Make a folder of a run where it is missing; raises what `write_whole` raises."""

    def make() -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if lasting(error):
                raise _unwritable(folder, error) from error
            raise

    patiently(make, f"run directory {folder}", (OSError,), note=note)


def write_whole(
    path: Path, content: bytes, *, note: Callable[[str], None] = lambda line: None, make_folder: bool = False
) -> None:
    """Write a file of a run in one step; a file system that is full or away for a while is waited for.

    Args:
        path: of the file.
        content: of the file.
        note: told when writing waits, and when it goes on.
        make_folder: make its folder where it is missing.

    Raises:
        RunError: its directory cannot be written.
    """

    def write() -> None:
        try:
            if make_folder:
                path.parent.mkdir(exist_ok=True)
            replace_file(path, content)
        except OSError as error:
            if lasting(error):
                raise _unwritable(path.parent, error) from error
            raise

    patiently(write, f"run directory {path.parent}", (OSError,), note=note)


def free_directory(parent: Path, name: str) -> Path:
    """Return `parent/name`, or with -2, -3, … where that exists."""
    path, number = parent / name, 1
    while path.exists():
        number += 1
        path = parent / f"{name}-{number}"
    return path


def shown_path(path: Path, *, like: Path) -> Path:
    """An absolute path as it was given: from the current folder, where `like` is and it lies below."""
    home = Path.cwd()
    below = not like.is_absolute() and path.is_relative_to(home) and path != home
    return path.relative_to(home) if below else path


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file of a run.

    Raises:
        RunError: it is missing or damaged.
    """
    return parsed_json(content_of(path), path)


def content_of(path: Path) -> bytes:
    """The content of a file of a run.

    Raises:
        RunError: it is missing, or cannot be read.
    """
    try:
        with regular(path) as file:
            return file.read()
    except OSError as error:
        raise RunError(
            f"{path} cannot be read: {error.strerror}; `autoprune resume` goes on with a run that has not got that far"
        ) from error


def regular(path: Path) -> BufferedReader:
    """Open a file of a run to read it.

    Raises:
        OSError: that cannot be, or it is a pipe, which is read from for ever, or a device, which may have no end.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def parsed_json(content: bytes, path: Path) -> dict[str, Any]:
    """What a JSON file of a run holds.

    Args:
        content: of the file.
        path: of the file, for messages.

    Raises:
        RunError: it is damaged.
    """
    try:
        data = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path} is damaged ({error}); start a new run") from error
    if not isinstance(data, dict):
        raise RunError(f"{path} is damaged (it holds a {type(data).__name__}, not an object); start a new run")
    return data


def _unwritable(path: Path, error: OSError) -> RunError:
    reason = error.strerror or str(error)
    named = f" ({Path(error.filename2 or error.filename).name})" if error.filename else ""
    return RunError(
        f"run directory {path} cannot be written: {reason}{named}; check the permissions or give another one"
    )
