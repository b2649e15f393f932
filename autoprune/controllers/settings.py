"""Settings by name: checked against a factory's signature before it is called."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from autoprune.errors import ConfigError, suggest


def check_settings(
    factory: Callable[..., Any], settings: Mapping[str, object], *, what: str, reserved: set[str]
) -> None:
    """Check that every setting is a keyword of `factory` and that none it needs is missing.

    Args:
        factory: a class or function.
        settings: the keywords it is about to be given, besides the reserved ones.
        what: what messages call it, for example "controller 'evolution'".
        reserved: parameters that are not settings.

    Raises:
        ConfigError: a setting that the factory does not take (the closest one is suggested), or a missing one.
    """
    parameters = inspect.signature(factory).parameters.values()
    keywords = {p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    allowed = [name for name in keywords if name not in reserved]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    for name in settings:
        if name not in allowed and not (takes_any and name not in reserved):
            known = f"its settings are {', '.join(allowed)}" if allowed else "it has no settings"
            raise ConfigError(f"{what} has no setting {name!r}; {known}.{suggest(name, allowed)}")
    missing = [name for name in allowed if keywords[name].default is inspect.Parameter.empty and name not in settings]
    if missing:
        raise ConfigError(f"{what} needs the setting {missing[0]!r}; add it to the controller's settings")
