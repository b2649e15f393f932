"""The search itself: session (the map), ledger, selection, run directory, progress and engines.

`autoprune.search(…)` is `autoprune.api.search`. Python binds this package to the same name as soon as anything in it is
imported, so the package can be called.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any


class _CallablePackage(ModuleType):
    @property
    def __wrapped__(self) -> Callable[..., Any]:
        """The function: `inspect.signature` shows its arguments."""
        function: Callable[..., Any] = importlib.import_module("autoprune.api").search
        return function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.__wrapped__(*args, **kwargs)


sys.modules[__name__].__class__ = _CallablePackage
