"""`autoprune parts`: every kind of part, with its source and when to use it."""

from __future__ import annotations

from typing import Any

from autoprune.errors import ConfigError, suggest
from autoprune.registry import Registry, load_object

KINDS = {
    "models": "autoprune.zoo:ZOO",
    "data": "autoprune.data:DATA_SETS",
    "tasks": "autoprune.tasks:TASKS",
    "measures": "autoprune.measures:MEASURES",
    "kinds": "autoprune.space.kinds:KIND_PARTS",
    "schedules": "autoprune.training.schedules:SCHEDULES",
    "objectives": "autoprune.training.objectives:OBJECTIVES",
    "terms": "autoprune.training.terms:TERMS",
    "metrics": "autoprune.cost:METRICS",
    "criteria": "autoprune.importance:CRITERIA",
    "inheritance": "autoprune.inherit:INHERITANCE",
    "allocations": "autoprune.allocation:ALLOCATIONS",
    "sparsity": "autoprune.sparsity:SPARSITY",
    "controllers": "autoprune.controllers:CONTROLLERS",
    "evaluators": "autoprune.evaluators:EVALUATORS",
    "proxies": "autoprune.proxies:PROXIES",
    "protocols": "autoprune.training:PROTOCOLS",
    "backends": "autoprune.latency:BACKENDS",
    "callbacks": "autoprune.progress:CALLBACKS",
    "exporters": "autoprune.export:EXPORTERS",
}
"""What the command line calls a kind -> its table, in the order of a job."""


def chosen(kind: str | None) -> dict[str, Registry]:
    """Kind -> its table: all of them, or one, for which its name in messages ("controller") does as well.

    Raises:
        ConfigError: there is no such kind.
    """
    tables: dict[str, Registry] = {name: load_object(path) for name, path in KINDS.items()}
    found = {name: table for name, table in tables.items() if kind in (None, name, table.kind)}
    if kind is not None and not found:
        known = [*tables, *(table.kind for table in tables.values())]
        raise ConfigError(f"unknown kind of part {kind!r}; choose one of {', '.join(tables)}.{suggest(kind, known)}")
    return found


def parts_json(kind: str | None) -> dict[str, Any]:
    """Kind -> name, source and use of each part; of one kind alone also the settings that all of its parts take."""
    tables = chosen(kind)
    found: dict[str, Any] = {name: _rows(table) for name, table in tables.items()}
    return found if kind is None else found | {"settings": dict(*(table.shared for table in tables.values()))}


def parts_tables(kind: str | None) -> list[Any]:
    """A table for each kind, and a line for each setting that all parts of a kind take."""
    return [shown for name, table in chosen(kind).items() for shown in _shown(name, table)]


def _rows(table: Registry) -> list[dict[str, str]]:
    return [{"name": name, "source": card.source, "use": card.use} for name, card in table.cards().items()]


def _shown(kind: str, table: Registry) -> list[Any]:
    from rich.text import Text

    from autoprune.cli.rows import Rows

    rows = Rows(kind, ("name", "when to use it", "source"), ())
    for row in _rows(table):
        rows.add(row["name"], row["use"], row["source"])
    return [rows, *(Text(f"every {table.kind} has the setting {name}: {what}") for name, what in table.shared.items())]
