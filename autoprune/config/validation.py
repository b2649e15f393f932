"""YAML files and settings checked against a model; every problem is one line of a `ConfigError`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo

from autoprune.config.bounded_files import shown_path
from autoprune.config.yaml_reader import read_yaml
from autoprune.errors import ConfigError, shortened, suggest
from autoprune.redaction import masked

_PROBLEMS, _LINE = 12, 400
"""So many problems are told at once, in so many characters each."""

M = TypeVar("M", bound=BaseModel)


class Strict(BaseModel):
    """Values that do not change; an unknown key is an error, and so is true or false for a number."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_not_one(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and bool not in _taken(cls.model_fields[str(info.field_name)]):
            raise ValueError("true and false are not allowed here")
        return value


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
    told = [
        problem
        for problem in problems  # a list of which an entry is wrong is too short for pydantic, too
        if problem["type"] != "too_short" or problem["loc"] not in places
    ]
    lines = [shortened(_explain(model, problem), _LINE) for problem in told[:_PROBLEMS]]
    more = [f"… and {len(told) - _PROBLEMS} more problems"] * (len(told) > _PROBLEMS)
    return ConfigError(f"{shortened(source, 300)}: " + "\n".join((*lines, *more)))


def read_mapping(path: Path, empty: Any = None, *, dumped: bool = False) -> Any:
    """Read a YAML file that holds keys and values; `empty` is what a file without any stands for.

    `dumped` says that we have written it, see `parse_yaml`.

    Raises:
        ConfigError: the file is missing, not YAML, or holds something else.
    """
    data = read_yaml(path, dumped=dumped)
    data = empty if data is None else data
    if not isinstance(data, dict):
        raise ConfigError(f"{shown_path(path)} must hold keys and values, got {type(data).__name__}")
    return data


def _explain(model: type[BaseModel], problem: dict[str, Any]) -> str:
    path = [str(part) for part in problem["loc"]]
    where = ".".join(shortened(part, 80) for part in path)
    shown = _shown(path[-1] if path else "", problem["input"])
    if problem["type"] == "extra_forbidden":
        allowed = _keys(model, path[:-1])
        return f"unknown key {where!r}.{suggest(path[-1], allowed)} Allowed here: {', '.join(allowed)}"
    if problem["type"] == "missing":
        return f"key {where!r} is missing; it has no default"
    if problem["type"] == "model_type":
        return f"{where}{': ' * bool(where)}must hold keys ({', '.join(_keys(model, path))}), got {shown}"
    if problem["type"] in ("tuple_type", "list_type"):
        return f"{where}{': ' * bool(where)}must be a list, for example [{_entry(problem['input'])}], got {shown}"
    text = problem["msg"].removeprefix("Value error, ")
    return f"{where}{': ' * bool(where)}{text[:1].lower()}{text[1:]}, got {shown}"


def _shown(key: str, value: object) -> str:
    """A value as messages quote it: without secrets, its middle left out where it is long."""
    try:
        return shortened(repr(masked({key: value})[key]), 160)
    except (ValueError, RecursionError):  # a number of thousands of digits; a list inside of itself
        return f"a value of type {type(value).__name__} that cannot be shown"


def _types(annotation: Any) -> set[Any]:
    """All types that an annotation is made of."""
    return {annotation}.union(*map(_types, get_args(annotation)))


def _taken(field: FieldInfo) -> set[Any]:
    """All types of what a field is given, also where something else is made of it."""
    made_of = (_types(own.json_schema_input_type) for own in field.metadata if isinstance(own, BeforeValidator))
    return _types(field.annotation).union(*made_of)


def _entry(given: object) -> str:
    """What a list would hold, where its only entry was given alone."""
    return given if isinstance(given, str) and given.isidentifier() and len(given) < 80 else "…"


def _keys(model: type[BaseModel], path: list[str]) -> list[str]:
    for part in path:
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        below = [a for a in (annotation, *get_args(annotation)) if isinstance(a, type) and issubclass(a, BaseModel)]
        if not below:
            break
        model = below[0]
    return list(model.model_fields)
