"""What any value of a job may be at most: lengths of texts and lists, sizes of numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, TypeAlias

from pydantic import AfterValidator, Field

NAME: Final = 300
"""Characters of a name."""

TEXT: Final = 4096
"""Characters of any other text; paths and URLs are shorter."""

PARTS: Final = 100
"""Entries of a list of parts."""

EPOCHS: Final = 100_000
CHANNELS: Final = 1_000_000
RULES: Final = 1000
TRIALS: Final = 1_000_000
DEEPEST, MOST_VALUES = 32, 20_000

Name: TypeAlias = Annotated[str, Field(min_length=1, max_length=NAME)]
Text: TypeAlias = Annotated[str, Field(max_length=TEXT)]


def check_plain(value: object, *, most: int = MOST_VALUES) -> None:
    """Check values that a part will read: no text, number or list beyond any sense.

    Args:
        value: mappings, lists and values; other objects are the part's own business.
        most: values in all.

    Raises:
        ValueError: one is; says which.
    """
    left, stack = most, [("", value, 0)]
    while stack:
        where, own, depth = stack.pop()
        left -= 1
        if left < 0 or depth > DEEPEST:
            raise ValueError(f"more than {most:,} values, or more than {DEEPEST} lists or mappings inside each other")
        if isinstance(own, Mapping):
            stack += [(f"{where}.{key}" if where else f"{key}", below, depth + 1) for key, below in own.items()]
            stack += [(where, key, depth + 1) for key in own]
        elif isinstance(own, list | tuple):
            stack += [(f"{where}.{i}", below, depth + 1) for i, below in enumerate(own[: left + 1])]
        else:
            _check_value(where[:NAME], own)


def number(value: object) -> object:
    """The value, unless it is true or false, which would count as 1 and 0."""
    if isinstance(value, bool):
        raise ValueError("true and false are not allowed here")
    return value


def _check_value(where: str, value: object) -> None:
    named = f"{where}: " if where else ""
    if isinstance(value, str) and len(value) > TEXT:
        raise ValueError(f"{named}a text of {len(value):,} characters; at most {TEXT:,} are allowed")
    if isinstance(value, int) and abs(value) >= 2**63:
        raise ValueError(f"{named}a number beyond 2^63; whole numbers are below")
    if isinstance(value, float) and not abs(value) <= 1e100:
        raise ValueError(f"{named}a number that is not finite or beyond 1e100")


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    check_plain(value)
    return value


Settings: TypeAlias = Annotated[dict[Name, Any], AfterValidator(_plain)]
"""Keywords of a part."""
