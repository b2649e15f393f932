"""YAML files and settings checked against a model; every problem is one line of a `ConfigError`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from autoprune.errors import ConfigError, suggest
from autoprune.redaction import masked

M = TypeVar("M", bound=BaseModel)


class Strict(BaseModel):
    """Values that do not change; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def validated(model: type[M], data: Any, source: str, *, folders: tuple[Path, ...] = ()) -> M:
    """Validate data against a model; every problem becomes one line with the key, the value and what is allowed.

    Args:
        model: what the data must fit.
        data: mappings, lists and values.
        source: names the data in messages.
        folders: where files that it names are looked for, beside the current folder.

    Raises:
        ConfigError: the data do not fit.
    """
    try:
        return model.model_validate(data, context={"folders": folders})
    except ValidationError as error:
        raise refusal(model, error, source) from None


def refusal(model: type[BaseModel], error: ValidationError, source: str) -> ConfigError:
    """What pydantic found, as an error of ours: one line for each problem."""
    problems: list[dict[str, Any]] = [dict(problem) for problem in error.errors()]
    places = {problem["loc"][:-1] for problem in problems}
    lines = [
        _explain(model, problem)
        for problem in problems  # a list of which an entry is wrong is too short for pydantic, too
        if problem["type"] != "too_short" or problem["loc"] not in places
    ]
    return ConfigError(f"{source}: " + "\n".join(lines))


def read_mapping(path: Path, empty: Any = None) -> Any:
    """Read a YAML file that holds keys and values; `empty` is what a file without any stands for.

    Raises:
        ConfigError: the file is missing, not YAML, or holds something else.
    """
    try:
        with path.open() as file:  # of a file the parser quotes no lines: they may hold a secret
            data = yaml.safe_load(file)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}; give the path of a YAML file") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    data = empty if data is None else data
    if not isinstance(data, dict):
        raise ConfigError(f"{path} must hold keys and values, got {type(data).__name__}")
    return data


def _explain(model: type[BaseModel], problem: dict[str, Any]) -> str:
    path = [str(part) for part in problem["loc"]]
    where, given = ".".join(path), masked({path[-1] if path else "": problem["input"]})
    shown = next(iter(given.values()))
    if problem["type"] == "extra_forbidden":
        allowed = _keys(model, path[:-1])
        return f"unknown key {where!r}.{suggest(path[-1], allowed)} Allowed here: {', '.join(allowed)}"
    if problem["type"] == "missing":
        return f"key {where!r} is missing; it has no default"
    if problem["type"] == "model_type":
        return f"{where}{': ' * bool(where)}must hold keys ({', '.join(_keys(model, path))}), got {shown!r}"
    if problem["type"] in ("tuple_type", "list_type"):
        return f"{where}{': ' * bool(where)}must be a list, for example [{_entry(problem['input'])}], got {shown!r}"
    text = problem["msg"].removeprefix("Value error, ")
    return f"{where}{': ' * bool(where)}{text[:1].lower()}{text[1:]}, got {shown!r}"


def _entry(given: object) -> str:
    """What a list would hold, where its only entry was given alone."""
    return given if isinstance(given, str) and given.isidentifier() else "…"


def _keys(model: type[BaseModel], path: list[str]) -> list[str]:
    for part in path:
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        below = [a for a in (annotation, *get_args(annotation)) if isinstance(a, type) and issubclass(a, BaseModel)]
        if not below:
            break
        model = below[0]
    return list(model.model_fields)
