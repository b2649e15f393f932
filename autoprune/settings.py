"""Settings by name: checked against a factory's signature before it is called."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from types import NoneType
from typing import Any, get_args, get_type_hints

from autoprune.errors import ConfigError, suggest


def check_settings(
    factory: Callable[..., Any],
    settings: Mapping[str, object],
    *,
    what: str,
    reserved: set[str],
    place: str = "the controller's settings",
) -> None:
    """Check that every setting is a keyword of `factory` and that none it needs is missing.

    Args:
        factory: a class or function.
        settings: the keywords it is about to be given, besides the reserved ones.
        what: what messages call it, for example "controller 'evolution'".
        reserved: parameters that are not settings.
        place: where a missing setting is to be added.

    Raises:
        ConfigError: a setting that the factory does not take (the closest one is suggested), or a missing one.
    """
    keywords = _keywords(factory)
    allowed = [name for name in keywords if name not in reserved]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in inspect.signature(factory).parameters.values())
    for name in settings:
        if name not in allowed and not (takes_any and name not in reserved):
            known = f"its settings are {', '.join(allowed)}" if allowed else "it has no settings"
            raise ConfigError(f"{what} has no setting {name!r}; {known}.{suggest(name, allowed)}")
    missing = missing_settings(factory, settings, reserved=reserved)
    if missing:
        raise ConfigError(f"{what} needs the setting {missing[0]!r}; add it to {place}")


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


def missing_settings(
    factory: Callable[..., Any], settings: Mapping[str, object], *, reserved: set[str]
) -> tuple[str, ...]:
    """The keywords without a default that `settings` lacks."""
    return tuple(
        name
        for name, parameter in _keywords(factory).items()
        if parameter.default is inspect.Parameter.empty and name not in settings and name not in reserved
    )


def _keywords(factory: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(factory).parameters.values()
    return {p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
