"""What settings of criteria may be."""

from __future__ import annotations

from typing import Any, get_args

from autoprune.errors import ConfigError, suggest


def check_choice(setting: str, given: object, allowed: Any) -> None:
    """Check a setting against the values of a `Literal`; raises ConfigError, with the closest one."""
    names = [str(name) for name in get_args(allowed)]
    if given not in names:
        raise ConfigError(f"{setting} must be one of {', '.join(names)}, got {given!r}.{suggest(str(given), names)}")
