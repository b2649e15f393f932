"""Values of the environment in files: `${NAME}`, or `${NAME:-default}`; `$${` is a plain `${`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from autoprune.errors import ConfigError, UnsetVariableError
from autoprune.redaction import Place, with_secrets

_REFERENCE = re.compile(r"\$(?P<escaped>\$\{)|\$\{(?P<name>[A-Za-z_]\w*)(?::-(?P<default>[^{}]*))?\}|(?P<wrong>\$\{)")
_WITHHELD = re.compile(r"AUTOPRUNE_\w+_SECRET(?:_\d+)?")


@final
@dataclass(frozen=True, slots=True)
class Reference:
    """A text with values of the environment.

    Attributes:
        written: as it stands in the file.
        value: as it was read.
    """

    written: str
    value: str


def expanded(data: Any, source: str) -> tuple[Any, dict[Place, Reference]]:
    """Data of a file with the values of the environment in place, and where they stand.

    Args:
        data: mappings, lists and values; only values are looked at.
        source: names the file in messages.

    Raises:
        UnsetVariableError: variables that are not set; all are named, with where they stand.
        ConfigError: a `${` that names none.
    """
    references: dict[Place, Reference] = {}
    unset: dict[str, list[str]] = {}

    def read(text: str, path: Place) -> str:
        where = ".".join(map(str, path))

        def value(match: re.Match[str]) -> str:
            if match["wrong"]:
                raise ConfigError(f"{source}: {where}: ${{ begins no ${{NAME}}; write $${{ for a plain ${{")
            if match["escaped"]:
                return match["escaped"]
            name, default = match["name"], match["default"]
            found = os.environ.get(name, "")
            if name not in os.environ and default is None:
                unset.setdefault(name, []).append(where)
            return found or default or ""

        result = _REFERENCE.sub(value, text)
        if any(match["name"] for match in _REFERENCE.finditer(text)):
            references[path] = Reference(text, result)
        return result

    result = _texts(data, read)
    if unset:
        raise UnsetVariableError(f"{source}: {_told(unset)}")
    return result, references


def written(data: Any, references: Mapping[Place, Reference]) -> Any:
    """Data as a file keeps them, for `expanded` to read: values of the environment by name, and so all secrets.

    A secret that was given in clear text is left out, and stands there as `${AUTOPRUNE_…_SECRET}`.
    """
    names: dict[str, str] = {}

    def name_of(secret: str, path: Place) -> str:
        key = next((re.sub(r"\W", "_", str(part)).upper() for part in reversed(path) if isinstance(part, str)), "")
        name, number = f"AUTOPRUNE_{key}_SECRET", 1
        while names.setdefault(name, secret) != secret:
            number += 1
            name = f"AUTOPRUNE_{key}_SECRET_{number}"
        return f"${{{name}}}"

    return with_secrets(_texts(data, lambda text, path: _unread(text, path, references)), name_of)


def variables(data: Any) -> dict[str, str]:
    """Variable -> the key where it stands, of all that the data of a file refer to."""
    found: dict[str, str] = {}

    def look(text: str, path: Place) -> str:
        names = (str(match["name"]) for match in _REFERENCE.finditer(text) if match["name"])
        found.update({name: ".".join(map(str, path)) for name in names})
        return text

    _texts(data, look)
    return found


def is_withheld(variable: str) -> bool:
    """Whether `written` has made this name, for a secret that it left out."""
    return _WITHHELD.fullmatch(variable) is not None


def without_withheld(data: Any) -> Any:
    """Data of a file in which secrets that `written` left out need not be set: what they are does not matter."""

    def read(text: str, path: Place) -> str:
        return _REFERENCE.sub(lambda match: "withheld" if is_withheld(match["name"] or "") else match[0], text)

    return _texts(data, read)


def _unread(text: str, path: Place, references: Mapping[Place, Reference]) -> str:
    """The text that was read as this one: a reference where there was one, maybe behind the folder it was found in."""
    found = references.get(path) or (references.get(path[:-1]) if path[-1:] == ("name",) else None)
    if found is not None:
        for value in (found.value, str(Path(found.value))):
            if text == value or text.endswith(f"/{value}"):
                return _escaped(text[: len(text) - len(value)]) + found.written
    return _escaped(text)


def _escaped(text: str) -> str:
    return text.replace("${", "$${")


def _texts(data: Any, change: Any, path: Place = ()) -> Any:
    """The same data with each text changed by (text, path) -> text."""
    if isinstance(data, Mapping):
        return {key: _texts(own, change, (*path, key)) for key, own in data.items()}
    if isinstance(data, list | tuple):
        return [_texts(own, change, (*path, i)) for i, own in enumerate(data)]
    return change(data, path) if isinstance(data, str) else data


def _told(unset: Mapping[str, list[str]]) -> str:
    named = ", ".join(f"{name} ({', '.join(places)})" for name, places in unset.items())
    several = len(unset) > 1
    text = f"environment variable{'s' if several else ''} not set: {named}. Set {'them' if several else 'it'}"
    if any(map(is_withheld, unset)):
        return (
            f"{text} to the secret that the run was started with in clear text, as it stood there (it is not kept), "
            f"or write a ${{NAME}} of your own in its place"
        )
    return f"{text}, write ${{NAME:-default}}, or $${{ for a plain ${{"
