"""Waiting for storage that refuses writes for a while: a full disk, a file system or a database that is away."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import TypeVar

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
    """
    began, wait, limit = time.monotonic(), _FIRST_WAIT, PATIENCE if patience is None else patience
    while True:
        try:
            result = action()
        except errors as error:
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
