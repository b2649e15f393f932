"""How a budget writes what it allows of one metric: an upper end, or a range."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autoprune.errors import suggest

ENDS = ("min", "max")


class RangeError(ValueError):
    """Keys that are not those of a range."""


def ends_of(given: object) -> dict[str, Any]:
    """The ends as they were given, under "max" and, for a range that has one, "min".

    Raises:
        RangeError: an unknown key, or a range without its upper end.
    """
    if not isinstance(given, Mapping):
        return {"max": given}
    unknown = [str(key) for key in given if key not in ENDS]
    if unknown:
        raise RangeError(f"unknown key {unknown[0]!r}.{suggest(unknown[0], ENDS)}")
    if "max" not in given:
        raise RangeError("a range needs a max: it has no 'max'.")
    return dict(given)
