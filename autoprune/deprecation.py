"""Public names that move keep working for a while: a dated warning says where they went and when they go for good."""

from __future__ import annotations

import functools
import importlib
import sys
import warnings
from collections.abc import Callable, Mapping
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, ParamSpec, TypeVar, final

P = ParamSpec("P")
R = TypeVar("R")

_MODULES = {
    "controllers.coarse": "controllers.wrappers.coarse",
    "controllers.history": "controllers.parts.history",
    "controllers.posterior": "score_model.posterior",
    "controllers.proposals": "controllers.parts.proposals",
    "controllers.ratios": "controllers.parts.ratios",
    "controllers.trust_region": "controllers.wrappers.trust_region",
    "cost.device_profile": "cost.latency.device_profile",
    "cost.limits": "cost.budget.limits",
    "cost.profile_files": "cost.latency.profile_files",
    "cost.repair": "cost.budget.repair",
    "engine_options": "config.engine",
    "settings": "config.settings",
    "space.program": "space.tracing.program",
    "space.rules": "space.tracing.rules",
    "space.slicing": "space.cutting.slicing",
    "space.trace": "space.tracing.trace",
    "space.verify": "space.verification.verify",
    "traced": "api.space",
    "training.callable_task": "tasks.callable",
    "training.task": "tasks.base",
}
"""Modules that moved on 2026-11-29, by their old names; what plug-ins are likely to import."""

_SINCE, _UNTIL = "2026-11-29", "2027-11-29"


class MovedWarning(FutureWarning):
    """A name that still works, but not for long."""


def warn_moved(old: str, new: str, *, since: str = _SINCE, until: str = _UNTIL, level: int = 3) -> None:
    """Say that a name has moved.

    Args:
        old: what was used.
        new: what to use in its place.
        since: the day it moved.
        until: the day after which the old name may be gone.
        level: frames between this call and the user's.
    """
    warnings.warn(f"{old} has moved ({since}): use {new}; the old name goes after {until}", MovedWarning, level)


def deprecated(*, use: str, since: str, until: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Mark a function: it works as before and says once a call what to use in its place.

    Args:
        use: what to use.
        since: the day from which on it is deprecated.
        until: the day after which it may be gone.
    """

    def mark(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def marked(*args: P.args, **kwargs: P.kwargs) -> R:
            warn_moved(f"{function.__module__}.{function.__qualname__}", use, since=since, until=until)
            return function(*args, **kwargs)

        return marked

    return mark


def moved_names(package: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """A `__getattr__` for a module that finds names where they are now.

    Args:
        package: the module's name.
        names: name -> the module that has it now; `module:attribute` where it has another name there.
    """

    def find(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, _, attribute = names[name].partition(":")
        warn_moved(f"{package}.{name}", f"{module}.{attribute or name}")
        return getattr(importlib.import_module(module), attribute or name)

    return find


@final
class _MovedModules(MetaPathFinder, Loader):
    """Imports modules by their old names; both names are the same module."""

    def __init__(self) -> None:
        self._specs: dict[str, ModuleSpec | None] = {}

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """A spec for an old name, None for any other."""
        name = fullname.removeprefix("autoprune.")
        return ModuleSpec(fullname, self) if fullname != name and name in _MODULES else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The module at its new place."""
        new = f"autoprune.{_MODULES[spec.name.removeprefix('autoprune.')]}"
        warn_moved(spec.name, new, level=6)
        module = importlib.import_module(new)
        self._specs[spec.name] = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Give the module its own spec back, which the import has just replaced."""
        old = module.__spec__
        if old is not None and old.name in self._specs:
            module.__spec__ = self._specs.pop(old.name)


def install() -> None:
    """Let modules be imported by the names that they had before they moved."""
    if not any(isinstance(finder, _MovedModules) for finder in sys.meta_path):
        sys.meta_path.insert(0, _MovedModules())  # before what an earlier version left in our folders
