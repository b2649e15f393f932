"""Names and keys that have moved: they keep working and say since when, and what to write instead."""

from __future__ import annotations

import warnings


def moved(old: str, new: str, *, since: str, stacklevel: int = 2) -> None:
    """Warn that `old` is written as `new` since a date.

    Args:
        old: what was written.
        new: what to write instead.
        since: YYYY-MM-DD.
        stacklevel: of the line to blame, counted from the caller.
    """
    warnings.warn(f"{old} still works, but since {since} it is {new}", FutureWarning, stacklevel=stacklevel + 1)
