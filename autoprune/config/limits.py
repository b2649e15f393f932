"""How a budget writes what it allows of one metric: an upper end, or a range."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from autoprune.errors import suggest

ENDS = ("min", "max")

LARGEST = 1e24
"""No network costs more, of any metric."""


class RangeError(ValueError):
    """Keys that are not those of a range."""


def limit_text(text: str) -> str:
    """A limit as a text; whether it is one is said where it is read, beside what can be reached.

    Raises:
        ValueError: it is too long.
    """
    if len(text) > 40:
        raise ValueError('a limit is a text such as "50%" or "40M", of at most 40 characters')
    return text


def limit_number(value: Any) -> float:
    """A limit in the unit of its metric.

    Raises:
        ValueError: below 0, beyond any network, or no number.
    """
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not 0 <= number <= LARGEST:
        raise ValueError(f"a limit must be a number from 0 to {LARGEST:g}")
    return number


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
