"""Settings by name: checked against a part's signature before it is called. The one place where keywords are bound."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Collection, Mapping
from types import NoneType
from typing import Any, get_args, get_type_hints

from autoprune.errors import ConfigError, shortened, suggest
from autoprune.registry import Registry


def bind(table: Registry, name: str, settings: Mapping[str, Any]) -> Any:
    """The part called `name`, with its settings given; it is called with what its kind is called with.

    Raises:
        RegistryError: no part has this name.
        ConfigError: a setting that the part does not take (the closest one is suggested), or a missing one.
    """
    part = table.get(name)
    check_settings(
        part,
        settings,
        what=f"{table.kind} {name!r}",
        called_with=table.called_with,
        reserved=table.reserved,
        needs=table.card(name).needs,
        place=f"the {table.kind}'s settings",
    )
    return functools.partial(part, **settings) if settings else part


def check_settings(
    part: object,
    settings: Mapping[str, object],
    *,
    what: str,
    called_with: int = 0,
    reserved: Collection[str] = (),
    needs: Mapping[str, str] | None = None,
    place: str = "the controller's settings",
    noun: str = "setting",
) -> None:
    """Check that every setting is a keyword of a part and that none it needs is missing.

    Args:
        part: a class or function; anything that cannot be called has no settings.
        settings: the keywords it is about to be given, besides the reserved ones.
        what: what messages call it, for example "controller 'evolution'".
        called_with: how many arguments it is given by position.
        reserved: keywords that are no settings.
        needs: missing setting -> how to come by it.
        place: where a missing setting is to be added.
        noun: what messages call a setting.

    Raises:
        ConfigError: a setting that the part does not take (the closest one is suggested), or a missing one.
    """
    keywords, given, takes_any = _keywords(part, called_with)
    allowed = [name for name in keywords if name not in reserved]
    for name in settings:
        if name not in allowed and not (takes_any and name not in (*given, *reserved)):
            known = f"its {noun}s are {', '.join(allowed)}" if allowed else f"it has no {noun}s"
            others = " and what it passes on" if takes_any and allowed else ""
            raise ConfigError(
                f"{what} has no {noun} {shortened(str(name), 80)!r}; {known}{others}.{suggest(str(name), allowed)}"
            )
    if str(getattr(part, "__module__", "")).startswith("autoprune."):
        _check_sizes(keywords, settings, what)
    missing = missing_settings(part, settings, called_with=called_with, reserved=reserved)
    if missing:
        how = (needs or {}).get(missing[0], "")
        raise ConfigError(f"{what} needs the {noun} {missing[0]!r}{how and ': '}{how}; add it to {place}")


def check_numbers(factory: Callable[..., Any], settings: Mapping[str, object], *, what: str) -> None:
    """Check the settings that are annotated as numbers; the factory checks ranges, and all others.

    Args:
        factory: a class or function.
        settings: the keywords it is about to be given.
        what: what messages call it.

    Raises:
        ConfigError: no whole number, or no finite one, where that is asked for.
    """
    try:
        hints = get_type_hints(factory.__init__ if inspect.isclass(factory) else factory)
    except (NameError, TypeError):  # names that only a type checker imports
        return
    for name, value in settings.items():
        wanted = set(get_args(hints.get(name)) or (hints.get(name),))
        if wanted - {NoneType} not in ({int}, {float}) or (value is None and NoneType in wanted):
            continue
        number = isinstance(value, int if int in wanted else int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value):  # type: ignore[arg-type]
            kind = "whole" if int in wanted else "finite"
            raise ConfigError(f"{what}: {name} must be a {kind} number, got {value!r}")


def _check_sizes(keywords: Mapping[str, inspect.Parameter], settings: Mapping[str, object], what: str) -> None:
    """Check numbers of our own parts, which say by their annotation what they are; what is allowed is wide."""
    for name, value in settings.items():
        wanted = str(keywords[name].annotation) if name in keywords else ""
        if (
            wanted.removesuffix(" | None") not in _SIZES
            or isinstance(value, bool)
            or not isinstance(value, int | float)
        ):
            continue
        most = 2**63 - 1 if name == "seed" else _SIZES[wanted.removesuffix(" | None")]
        if abs(value) > most:
            raise ConfigError(f"{what}: {name} must be a number of at most {most:,}, got {shortened(str(value), 60)}")


_SIZES = {"int": 10_000_000, "float": 1_000_000_000_000}
"""How a setting is annotated -> the largest one that makes sense."""


def missing_settings(
    part: object, settings: Mapping[str, object], *, called_with: int = 0, reserved: Collection[str] = ()
) -> tuple[str, ...]:
    """The keywords without a default that `settings` lacks."""
    keywords, _, _ = _keywords(part, called_with)
    return tuple(
        name
        for name, parameter in keywords.items()
        if parameter.default is inspect.Parameter.empty and name not in settings and name not in reserved
    )


def _keywords(part: object, called_with: int) -> tuple[dict[str, inspect.Parameter], list[str], bool]:
    """What can be given by keyword, what is given by position, and whether any other keyword is taken, too."""
    if not callable(part):
        return {}, [], False
    try:
        parameters = list(inspect.signature(part).parameters.values())
    except ValueError:  # a class or function written in C that does not tell
        return {}, [], True
    given = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)][:called_with]
    named = (p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY))
    return {p.name: p for p in named if p.name not in given}, given, any(p.kind is p.VAR_KEYWORD for p in parameters)
