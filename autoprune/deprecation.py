"""Public names that change keep working for half a year, and say once where they are used what to write instead.

* `@deprecated(since="2026-11-29", use="autoprune.…")` on a function or class that is to go;
* `__getattr__ = moved(__name__, {"Old": "package.module:New"}, since=…)` in a module that a name has left;
* a row in `MODULES` for a module that has moved: importing the old one gives the names of the new one.

An old name is deleted, with its row, on the first release after its date.
"""

from __future__ import annotations

import functools
import importlib
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import ModuleType
from typing import Any, TypeVar, final

T = TypeVar("T", bound=Callable[..., Any])

_KEPT = timedelta(days=182)
_ROOMS = "2026-11-29"  # rooms inside the flat halls


class Deprecated(FutureWarning):
    """A name of autoprune that works for now, and from when on it does not; shown by default, in plug-ins, too."""


MODULES: Mapping[str, tuple[str, ...]] = {
    "autoprune.controllers.coarse": ("autoprune.controllers.wrappers.coarse",),
    "autoprune.controllers.greedy": ("autoprune.controllers.parts.greedy",),
    "autoprune.controllers.history": ("autoprune.controllers.parts.history",),
    "autoprune.controllers.kernel": ("autoprune.score_model.kernel",),
    "autoprune.controllers.posterior": ("autoprune.score_model.posterior",),
    "autoprune.controllers.proposals": ("autoprune.controllers.parts.proposals",),
    "autoprune.controllers.ratios": ("autoprune.controllers.parts.ratios",),
    "autoprune.controllers.score_noise": ("autoprune.score_model.noise",),
    "autoprune.controllers.trust_region": ("autoprune.controllers.wrappers.trust_region",),
    "autoprune.cost.device_profile": ("autoprune.cost.latency.device_profile",),
    "autoprune.cost.latency_ms": ("autoprune.cost.latency.latency_ms",),
    "autoprune.cost.limits": ("autoprune.cost.budget.limits",),
    "autoprune.cost.peak_memory_mb": ("autoprune.cost.memory.peak_memory_mb",),
    "autoprune.cost.repair": ("autoprune.cost.budget.repair",),
    "autoprune.cost.size_mb": ("autoprune.cost.memory.size_mb",),
    "autoprune.engine_options": ("autoprune.config.engine",),
    "autoprune.settings": ("autoprune.config.settings",),
    "autoprune.space.calls": ("autoprune.space.tracing.calls",),
    "autoprune.space.flop_check": ("autoprune.space.verification.flop_check",),
    "autoprune.space.graph_form": ("autoprune.space.cutting.graph_form",),
    "autoprune.space.labels": ("autoprune.space.tracing.labels",),
    "autoprune.space.program": ("autoprune.space.tracing.program",),
    "autoprune.space.resize": ("autoprune.space.tracing.resize",),
    "autoprune.space.rules": ("autoprune.space.tracing.rules",),
    "autoprune.space.slicing": ("autoprune.space.cutting.slicing",),
    "autoprune.space.trace": ("autoprune.space.tracing.trace",),
    "autoprune.space.verify": ("autoprune.space.verification.verify",),
    "autoprune.traced": ("autoprune.api.space",),
    "autoprune.training.callable_task": ("autoprune.tasks.callable",),
    "autoprune.training.task": ("autoprune.tasks.base", "autoprune.tasks.classification"),
    "autoprune.validation": ("autoprune.config.validation",),
    "autoprune.zoo.sizes": ("autoprune.zoo.scaling",),
}
"""Modules that others may import and that moved, with those inside them -> where their names are, first one first."""


def deprecated(*, since: str, use: str) -> Callable[[T], T]:
    """Mark a function or class as one that goes half a year after a date; using it warns.

    Args:
        since: the date, YYYY-MM-DD.
        use: what to use in its place.
    """
    goes = _goes(since)

    def mark(thing: T) -> T:
        name = f"{thing.__module__}.{thing.__qualname__}"
        if isinstance(thing, type):
            made: Any = thing.__init__  # type: ignore[misc]

            @functools.wraps(made)
            def begin(self: Any, *given: Any, **named: Any) -> None:
                _warn(name, use, goes)
                made(self, *given, **named)

            thing.__init__ = begin  # type: ignore[misc]
            return thing

        @functools.wraps(thing)
        def call(*given: Any, **named: Any) -> Any:
            _warn(name, use, goes)
            return thing(*given, **named)

        found: Any = call
        return found  # type: ignore[no-any-return]

    return mark


def moved(module: str, names: Mapping[str, str], *, since: str) -> Callable[[str], Any]:
    """A `__getattr__` for a module that names have left: they are found, with a warning.

    Args:
        module: `__name__`.
        names: old name -> "module:name" of today, or "module" where the name is the same.
        since: the date, YYYY-MM-DD.
    """
    goes = _goes(since)

    def find(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        home, _, today = names[name].partition(":")
        if not sys._getframe(1).f_code.co_filename.startswith("<frozen importlib"):  # it only asks whether it is there
            _warn(f"{module}.{name}", f"{home}.{today or name}", goes)
        return getattr(importlib.import_module(home), today or name)

    return find


@final
class OldModules(MetaPathFinder):
    """Finds modules of `MODULES`; before other finders, as another copy of autoprune may lie on the path."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The specification of a module that moved; None for all others."""
        if not fullname.startswith("autoprune."):
            return None
        for old, homes in MODULES.items():
            if fullname == old:
                return spec_from_loader(fullname, _Moved(homes), is_package=True)
            if fullname.startswith(f"{old}."):
                return spec_from_loader(fullname, _Moved((homes[0] + fullname.removeprefix(old),)), is_package=True)
        if fullname == "autoprune.search":
            raise ModuleNotFoundError(
                "autoprune.search is a function; what was in a package of that name is in autoprune.trials (session, "
                f"ledger, selection), autoprune.engines and autoprune.progress since {_ROOMS}",
                name=fullname,
            )
        return None


@final
class _Moved(Loader):
    """Fills an old module with the names of the new ones, the same objects."""

    def __init__(self, homes: tuple[str, ...]) -> None:
        self._homes = homes

    def exec_module(self, module: ModuleType) -> None:
        homes = [importlib.import_module(home) for home in self._homes]
        _warn(module.__name__, " and ".join(self._homes), _goes(_ROOMS))

        def find(name: str) -> Any:
            for home in homes:
                if hasattr(home, name):
                    return getattr(home, name)
            raise AttributeError(f"{' and '.join(self._homes)}, which {module.__name__} is now, has no {name!r}")

        module.__dict__["__getattr__"] = find


def find_old_modules() -> None:
    """Let old modules be imported from now on."""
    if not any(isinstance(finder, OldModules) for finder in sys.meta_path):
        sys.meta_path.insert(0, OldModules())


def _goes(since: str) -> date:
    return date.fromisoformat(since) + _KEPT


def _warn(old: str, use: str, goes: date) -> None:
    warnings.warn(f"{old} is now {use}; change your code, the old name goes on {goes}", Deprecated, stacklevel=3)
