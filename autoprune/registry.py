"""Names to parts: a literal table of `module:attribute` strings, plus entry points of other packages.

Listing names imports nothing heavy; a part is imported when it is asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, final

from autoprune.errors import RegistryError, blame, suggest


def load_object(path: str) -> Any:
    """Import `package.module:attribute` (dots allowed in the attribute).

    Raises:
        RegistryError: the path has another form, the module or attribute does not exist, or importing it fails.
    """
    module_name, separator, attribute = path.partition(":")
    if not separator or not module_name or not attribute:
        raise RegistryError(f"{path!r} is not of the form 'module:attribute', for example 'my_package.models:make_net'")
    with blame(RegistryError, f"{path!r} cannot be imported", then="Correct the module."):
        try:
            found: Any = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            raise RegistryError(
                f"{path!r}: module {error.name!r} was not found; is its folder on PYTHONPATH or installed?"
            ) from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            names = [name for name in vars(found) if not name.startswith("_")]
            raise RegistryError(f"{path!r}: {module_name!r} has no {part!r}.{suggest(part, names)}")
        found = getattr(found, part)
    return found


@final
class Registry:
    """The parts of one kind, by name.

    Args:
        kind: what the parts are called in messages, in the singular ("controller").
        table: name -> "module:attribute", in the order in which they are listed.
        group: entry-point group through which other packages add parts ("autoprune.controllers").
    """

    def __init__(self, kind: str, table: Mapping[str, str], *, group: str | None = None) -> None:
        self.kind = kind
        self._table = dict(table)
        self._group = group

    def names(self) -> list[str]:
        """All names, ours first, then those of other packages."""
        return [*self._table, *self._plugins()]

    def get(self, name: str) -> Any:
        """Import and return the part called `name`.

        Raises:
            RegistryError: no part has this name (the closest one is suggested), or its package is broken.
        """
        if name in self._table:
            return load_object(self._table[name])
        plugins = self._plugins()
        if name in plugins:
            return load_object(plugins[name].value)
        names = self.names()
        raise RegistryError(f"unknown {self.kind} {name!r}; choose one of {', '.join(names)}.{suggest(name, names)}")

    def _plugins(self) -> dict[str, EntryPoint]:
        found: dict[str, EntryPoint] = {}
        for point in entry_points(group=self._group) if self._group else ():
            if point.name in self._table or (point.name in found and found[point.name].value != point.value):
                raise RegistryError(
                    f"{self.kind} {point.name!r} is offered twice, the second time by {point.value!r}; "
                    f"uninstall one of the two packages or rename its entry point"
                )
            found[point.name] = point
        return found
