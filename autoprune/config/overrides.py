"""Single keys of a job that are set beside its file, by their dotted path: `search.trials`, `constraints.flops`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from autoprune.config.yaml_reader import parse_yaml
from autoprune.errors import ConfigError
from autoprune.texts import printable

_NAMED = ("engine", "controller", "evaluator", "criterion", "task", "measure")
"""Parts that a job may give by their name alone."""

_SHOWN = 200
"""Characters of a pair that a message shows."""


def read_pairs(pairs: Sequence[str], option: str = "--set", *, example: str = "search.trials=200") -> dict[str, Any]:
    """`key=value` pairs as dotted key -> value, values in YAML; of two of one key the last holds.

    Raises:
        ConfigError: something else.
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        key = key.strip()
        if not separator or not key or not all(key.split(".")):
            raise ConfigError(f"{option} {printable(repr(pair), _SHOWN)}: give KEY=VALUE, for example {example}")
        try:
            found[key] = parse_yaml(value, "the value")
        except ConfigError as error:
            shown = printable(repr(pair), _SHOWN)
            raise ConfigError(
                f"{option} {shown}: the value is not valid YAML; quote it, or close its brackets ({error})"
            ) from error
    return found


def overridden(data: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The data of a job file with other values under these dotted keys; whether they are allowed is not looked at.

    A part given by its name alone keeps it where something below it is set (`search.controller.settings.population`).

    Raises:
        ConfigError: a key leads through something that holds no keys, or past the end of a list.
    """
    changed: Any = dict(data)
    for key, value in changes.items():
        changed = _set(changed, key.split("."), value, key, ())
    return dict(changed)


def _set(data: Any, path: list[str], value: Any, key: str, done: tuple[str, ...]) -> Any:
    if not path:
        return value
    head, rest = path[0], path[1:]
    if isinstance(data, list | tuple):
        if not head.isdigit() or int(head) >= len(data):
            raise ConfigError(
                f"{key}: {'.'.join(done)} is a list of {len(data)}; give the whole list ({'.'.join(done)}=[…]), or a "
                f"position from 0 to {len(data) - 1}"
            )
        entries = list(data)
        entries[int(head)] = _set(entries[int(head)], rest, value, key, (*done, head))
        return entries
    if isinstance(data, str) and done and (done[-1] in _NAMED or done[-1].isdigit()):
        data = {"name": data}
    if data is None:
        data = {}
    if not isinstance(data, Mapping):
        raise ConfigError(
            f"{key}: {'.'.join(done)} is {data!r}, which holds no keys; give {'.'.join(done)}=… as a whole"
        )
    return {**data, head: _set(data.get(head), rest, value, key, (*done, head))}
