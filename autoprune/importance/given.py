"""Criteria that Python code gives as they are: a function gets a name, by which jobs and registries know it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any

from autoprune.errors import ConfigError, RegistryError
from autoprune.registry import load_object
from autoprune.tasks.identity import function_identity

_GIVEN: dict[str, Callable[..., Any]] = {}


def named_criterion(given: Any) -> Any:
    """A criterion as a job names it: a function by `module:attribute`, whatever else as it is.

    One that no module has (a lambda, a closure, a function of a notebook) is known in this process only. Its name
    changes with what it does, so that a run is not resumed with another one.

    Args:
        given: a name, a function, or a mapping whose `name` is one of the two.

    Raises:
        ConfigError: a class, which is no function of evidence and a generator.
    """
    if isinstance(given, Mapping) and callable(given.get("name")):
        return {**given, "name": named_criterion(given["name"])}
    if not callable(given):
        return given
    if isinstance(given, type):
        raise ConfigError(
            f"criterion is the class {given.__name__}; give a function (evidence, generator) -> scores, or an object "
            f"of the class that can be called"
        )
    module, attribute = getattr(given, "__module__", None), getattr(given, "__qualname__", None)
    if module and attribute and module != "__main__":
        try:
            if load_object(f"{module}:{attribute}") is given:
                return f"{module}:{attribute}"
        except RegistryError:  # inside another function
            pass
    called = re.sub(r"\W", "", getattr(given, "__name__", type(given).__name__)) or "criterion"
    name = f"{called}_{hashlib.sha256(function_identity(given).encode()).hexdigest()[:8]}"
    _GIVEN[name] = given
    return f"{__name__}:{name}"


def __getattr__(name: str) -> Callable[..., Any]:
    if name in _GIVEN:
        return _GIVEN[name]
    raise AttributeError(f"no criterion was given as {name!r} in this process")
