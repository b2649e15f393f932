"""Secrets in what is written or shown, found by where they stand in URLs and by the names they go under."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

MASK = "***"
"""Stands where a secret was."""

Place: TypeAlias = "tuple[str | int, ...]"

REFERENCES = re.compile(r"(?:\$\{[A-Za-z_]\w*\})+")
"""Nothing but values of the environment: names, which tell nothing."""

_PASSWORD = r"[\w.-]*(?:password|passwd|passphrase|pwd)"
_NAME = (
    rf"(?:{_PASSWORD}|[\w.-]*(?:api|access|secret|account|private)[_-]?key(?:[_-]id)?|(?:[\w.-]*[_.-])?(?:pass|secret|"
    r"credentials?|signature)|(?:[\w.-]*[_.-]|auth|access|session|security|refresh|bearer)?token)"
)
_URL = re.compile(r"\s*[A-Za-z][\w+.-]*://")
_QUERY_NAME = rf"(?:{_NAME}|key|sig|auth|odbc_connect)"
_IN_URLS = (  # a value that is one URL: passwords may hold quotes, blanks, and an @ that nobody escaped
    re.compile(r"^\s*[A-Za-z][\w+.-]*://[^:/@]*:(?P<secret>[^@]+(?:@[^@/?#]*)*)@"),
    re.compile(r"^\s*(?:git\+)?https?://(?P<secret>[^:/@?#]+)@"),
    re.compile(rf"[?&;]{_QUERY_NAME}=(?P<secret>[^&]+)", re.IGNORECASE),
)
_IN_OTHERS = (re.compile(r"(?<![\w.%+-])[\w.%+-]+:(?P<secret>[^\s@/:'\"]+)@(?=[\w\[])"),)  # without a scheme, or half
_IN_TEXTS = (
    # bounded and possessive: a message may be a megabyte of letters, or of addresses
    re.compile(r"[A-Za-z][\w+.-]{0,30}://[^\s:/@]*+:(?P<secret>[^\s@]{1,4096}+(?:@[^\s@/?#]*+)*)@"),
    re.compile(r"https?://(?P<secret>[^\s:/@?#]+)@"),
    re.compile(rf"[?&;]{_QUERY_NAME}=(?P<secret>[^\s&#'\"]+)", re.IGNORECASE),
    re.compile(rf"(?<![\w.-]){_NAME}=(?P<secret>[^\s,;&'\")\]}}]+)", re.IGNORECASE),
    re.compile(rf"(?<![\w.-]){_NAME}['\"]?\s*[:=]\s*(?P<quote>['\"])(?P<secret>.+?)(?P=quote)", re.IGNORECASE),
    re.compile(r"\bBearer\s+(?P<secret>[\w.~+/=-]{8,})"),
)


def masked(data: Any, *, known: tuple[str, ...] = (), references: bool = True) -> Any:
    """Text, or mappings and lists of values, without its secrets.

    Args:
        data: what is to be written or shown.
        known: secrets that are masked wherever they stand.
        references: leave `${NAME}` in the place of a secret.
    """
    if isinstance(data, str):
        for secret in sorted(known, key=len, reverse=True):
            data = data.replace(secret, MASK)
    return with_secrets(data, lambda secret, path: MASK, references=references)


def with_secrets(data: Any, put: Callable[[str, Place], str], *, references: bool = True, path: Place = ()) -> Any:
    """The same data with something in the place of each secret.

    Args:
        data: text, or mappings and lists of values.
        put: (secret, path to the value that holds it) -> what stands there instead.
        references: leave `${NAME}` in the place of a secret.
        path: of the data in a larger whole.
    """
    if isinstance(data, Mapping):
        return {key: with_secrets(own, put, references=references, path=(*path, key)) for key, own in data.items()}
    if type(data) in (list, tuple):
        return type(data)(with_secrets(own, put, references=references, path=(*path, i)) for i, own in enumerate(data))
    name = next((part for part in reversed(path) if isinstance(part, str)), "")
    if isinstance(data, int | float) and not isinstance(data, bool):
        return put(str(data), path) if re.fullmatch(_PASSWORD, name, re.IGNORECASE) else data
    if not isinstance(data, str):
        return data
    done, at = "", 0
    for start, end in _places(data, whole=bool(re.fullmatch(_NAME, name, re.IGNORECASE))):
        if not (references and REFERENCES.fullmatch(data, start, end)):
            done, at = done + data[at:start] + put(data[start:end], path), end
    return done + data[at:]


def secrets_in(data: Any) -> tuple[str, ...]:
    """The secrets themselves, as they stand there."""
    found: dict[str, None] = {}
    with_secrets(data, lambda secret, path: str(found.setdefault(secret)))
    return tuple(found)


def _places(text: str, *, whole: bool) -> Iterator[tuple[int, int]]:
    """Where secrets stand, in order, none inside another."""
    if whole:
        yield from [(0, len(text))] if text else []
        return
    patterns = _IN_URLS if _URL.match(text) else _IN_OTHERS
    in_texts = _IN_TEXTS if "@" in text else _IN_TEXTS[2:]  # the first two look for it from every address
    places = sorted(match.span("secret") for pattern in (*patterns, *in_texts) for match in pattern.finditer(text))
    merged: list[tuple[int, int]] = []
    for start, end in places:
        if merged and start < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    yield from merged
