"""What Ray needs of this machine to start: where a limit is too low it hangs, or ends after a while without why."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from autoprune.errors import ConfigError

SPACE, WORKER_SPACE = 1.2e9, 2.0e9
"""Bytes of address space beside the object store, which each process maps: what Ray adds to this one, and what a worker
takes with torch; measured with ray 2.60: 1.0e9 and 1.8e9."""

FILES, FILES_PER_WORKER = 100, 8
"""Open files of the raylet; measured: 55 with two workers."""

THREADS, THREADS_PER_WORKER = 150, 40
"""Threads of all its processes; measured: 140, and 21 to 36 of each worker."""

ROOM = 50e6
"""Bytes on the disk that holds its sockets and logs."""

SHARED = Path("/dev/shm")


def check_machine(workers: int) -> None:
    """Refuse to start Ray where it could not.

    Args:
        workers: how many are to be started.

    Raises:
        ConfigError: a limit of this process is too low, or a folder that Ray needs cannot be written.
    """
    for lacks in (*_limits(workers), *_folders()):
        raise ConfigError(f"engine: Ray cannot start here: {lacks}, or use engine: local")


def _limits(workers: int) -> Iterator[str]:
    """What is wrong with the limits of this process, each with what to do."""
    try:
        import resource
    except ImportError:  # Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    needed = object_store() + max(WORKER_SPACE, mapped() + SPACE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        yield (
            f"the address space of a process is limited to {soft / 1e9:.1f} GB (ulimit -v), and its processes map "
            f"{needed / 1e9:.1f} GB each, most of it shared memory. Raise the limit (ulimit -v unlimited)"
        )
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = FILES + FILES_PER_WORKER * workers
    if hard != resource.RLIM_INFINITY and hard < needed:  # Ray raises the soft one itself
        yield (
            f"a process may open {hard} files (ulimit -Hn), and with {workers} workers it opens up to {needed:.0f}. "
            f"Raise the limit, ask for fewer workers"
        )
    soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    needed = THREADS + THREADS_PER_WORKER * workers
    if soft != resource.RLIM_INFINITY and os.geteuid() != 0 and soft < (used := threads(os.getuid())) + needed:
        yield (
            f"this user may have {soft} processes and threads (ulimit -u) and has {used}; with {workers} workers Ray "
            f"starts up to {needed:.0f}. Raise the limit, end others, ask for fewer workers"
        )


def _folders() -> Iterator[str]:
    """What is wrong with the folders that Ray writes to, each with what to do."""
    if sys.platform == "linux" and not os.access(SHARED, os.W_OK | os.X_OK):
        yield f"{SHARED} cannot be written, where it shares memory. Mount it (docker: --shm-size=2g)"
    folder = temporary()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            free = shutil.disk_usage(folder).free
    except OSError as error:
        yield f"{folder} cannot be written ({error.strerror}), where its sockets and logs lie. Set RAY_TMPDIR"
    else:
        if free < ROOM:
            yield (
                f"{folder}, where its sockets and logs lie, has {free / 1e6:.0f} MB free, and it needs "
                f"{ROOM / 1e6:.0f}. Free some, or set RAY_TMPDIR to a folder elsewhere"
            )


def temporary() -> Path:
    """The folder in which Ray makes its own."""
    named = os.environ.get("RAY_TMPDIR")
    if named is None and sys.platform == "linux":
        named = os.environ.get("TMPDIR")
    return Path(named if named is not None else "/tmp")


def object_store() -> int:
    """Bytes that Ray's object store will have; 0 where this version does not tell."""
    from ray._private import utils

    with suppress(Exception):  # not part of its interface
        return int(utils.resolve_object_store_memory(utils.estimate_available_memory()))
    return 0


def mapped() -> int:
    """Bytes of address space of this process, on Linux."""
    with suppress(OSError, ValueError):
        return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def threads(user: int) -> int:
    """How many threads a user has, on Linux."""
    found = 0
    for status in Path("/proc").glob("[0-9]*/status"):
        with suppress(OSError, ValueError, LookupError):  # it has ended
            fields = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
            if int(fields["Uid"].split()[0]) == user:
                found += int(fields["Threads"])
    return found
