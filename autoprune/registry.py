"""Names to parts: literal tables of cards, plus entry points of other packages.

Listing names and our own cards imports nothing heavy; a part is imported when it is asked for.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import EntryPoint, entry_points
from typing import Any, final

from autoprune.errors import RegistryError, blame, shortened, suggest


def load_object(path: str) -> Any:
    """Import `package.module:attribute` (dots allowed in the attribute).

    Raises:
        RegistryError: the path has another form, the module or attribute does not exist, or importing it fails.
    """
    module_name, separator, attribute = path.partition(":")
    if not separator or not module_name or not attribute:
        path = shortened(path, 200)
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
@dataclass(frozen=True, slots=True)
class Part:
    """The card of a part. What is left out is read from the part itself (see `Registry.card`).

    Attributes:
        path: "module:attribute".
        source: who described it.
        use: when to choose it, one sentence.
        needs: settings without a default -> how to come by them.
        told: how sentences call it, where the name itself will not do ("the FLOPs").
    """

    path: str
    source: str = ""
    use: str = ""
    needs: Mapping[str, str] = field(default_factory=dict)
    told: str = ""


@final
class Registry:
    """The parts of one kind, by name.

    Args:
        kind: what the parts are called in messages, in the singular ("controller").
        table: name -> card, or "module:attribute" alone, in the order in which they are listed.
        group: entry-point group through which other packages add parts ("autoprune.controllers").
        families: "prefix:WHAT" -> card of a function that returns the part called "prefix:…", given what follows the
            prefix.
        called_with: how many arguments parts of this kind are called with by position; the others are settings.
        reserved: keywords of parts that are no settings, as whoever calls the part gives them.
        shared: settings that every part of this kind takes -> what they do.
    """

    def __init__(
        self,
        kind: str,
        table: Mapping[str, Part | str],
        *,
        group: str | None = None,
        families: Mapping[str, Part] | None = None,
        called_with: int = 0,
        reserved: tuple[str, ...] = (),
        shared: Mapping[str, str] | None = None,
    ) -> None:
        self.kind = kind
        self.called_with, self.reserved = called_with, reserved
        self.shared: Mapping[str, str] = shared or {}
        self._table = {name: row if isinstance(row, Part) else Part(row) for name, row in table.items()}
        self._families = dict(families or {})
        self._group = group

    def names(self) -> list[str]:
        """All names, ours first, then those of other packages."""
        return [*self._table, *self._plugins()]

    def check(self, name: str) -> None:
        """Check that one part has this name, importing nothing; raises RegistryError where none has, or two have."""
        self._row(name)
        for point in entry_points(group=self._group) if self._group and name in self._table else ():
            if point.name == name:  # or whoever installed it would believe that it is used
                raise self._twice(point)

    def get(self, name: str) -> Any:
        """Import and return the part called `name`; "module:attribute" is one that need not have a name.

        Raises:
            RegistryError: no part has this name (the closest one is suggested), or it cannot be imported.
        """
        row, rest = self._row(name)
        found = load_object(row.path)
        return found if rest is None else found(rest)

    def card(self, name: str) -> Part:
        """The card of the part called `name`.

        A part of another package is imported for it: its attributes `source` and `use` count where they are texts, then
        the first sentence of its documentation; a package that cannot be imported says so instead.

        Raises:
            RegistryError: no part has this name.
        """
        row, _ = self._row(name)
        return row if row.source and row.use else _described(row)

    def cards(self) -> dict[str, Part]:
        """Name -> card of all that can be named: ours, those of other packages, and the families."""
        return {name: self.card(name) for name in (*self.names(), *self._families)}

    def _row(self, name: str) -> tuple[Part, str | None]:
        """The row of a name, and what follows the prefix where it is that of a family."""
        if name in self._table:
            return self._table[name], None
        for family, row in self._families.items():
            prefix = family[: family.index(":") + 1]
            if name.startswith(prefix):
                return row, name.removeprefix(prefix)
        plugins = self._plugins()
        if name in plugins:
            point = plugins[name]
            return Part(point.value, f"the package {point.dist.name}" if point.dist is not None else ""), None
        if ":" in name:  # of the user's own, without a name
            return Part(name), None
        names = [*self.names(), *self._families]
        raise RegistryError(
            f"unknown {self.kind} {shortened(name, 200)!r}; choose one of {', '.join(names)}.{suggest(name, names)}"
        )

    def _plugins(self) -> dict[str, EntryPoint]:
        found: dict[str, EntryPoint] = {}
        for point in entry_points(group=self._group) if self._group else ():
            if point.name in self._table or (point.name in found and found[point.name].value != point.value):
                raise self._twice(point)
            found[point.name] = point
        return found

    def _twice(self, point: EntryPoint) -> RegistryError:
        return RegistryError(
            f"{self.kind} {point.name!r} is offered twice, the second time by {point.value!r}; uninstall one of the "
            f"two packages or rename its entry point"
        )


def _described(card: Part) -> Part:
    """A card, completed by what its part says of itself."""
    try:
        part = load_object(card.path)
    except RegistryError as error:
        return replace(card, source=card.source or "an installed package", use=card.use or f"It is broken: {error}")
    own = {name: text for name in ("source", "use") if isinstance(text := getattr(part, name, None), str) and text}
    has_words = inspect.isclass(part) or inspect.isroutine(part)
    said = " ".join((part.__doc__ or "").strip().partition("\n\n")[0].split()) if has_words else ""
    told = own.get("use") or said or "Its package does not say when to use it."
    return replace(card, source=own.get("source") or card.source or "an installed package", use=card.use or told)
