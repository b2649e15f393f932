"""Kinds by name, each made once, when it is asked for."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import final

from autoprune.errors import RegistryError
from autoprune.registry import Registry
from autoprune.space.kinds.base import Kind


@final
class KindTable(Mapping[str, Kind]):
    """The kinds of a registry, whose parts are classes without arguments.

    A name that nobody has is a KeyError, as in any mapping.

    Raises:
        RegistryError: a package is broken, or offers what is no kind.
    """

    def __init__(self, parts: Registry) -> None:
        self._parts = parts
        self._made: dict[str, Kind] = {}

    def __getitem__(self, name: str) -> Kind:
        if name not in self._made:
            if name not in self._parts.names():
                raise KeyError(name)
            found = self._parts.get(name)
            if not inspect.isclass(found) or not issubclass(found, Kind) or inspect.isabstract(found):
                raise RegistryError(
                    f"{self._parts.kind} {name!r} is {found!r}; offer a subclass of autoprune.space.kinds.Kind that "
                    f"has all of its methods"
                )
            self._made[name] = found()
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts.names())

    def __len__(self) -> int:
        return len(self._parts.names())
