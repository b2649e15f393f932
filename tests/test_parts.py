"""Laws of every part of every kind: its card, its settings, and how it is called."""

from __future__ import annotations

import inspect
import typing
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest

from autoprune import registry
from autoprune.cli.parts import KINDS
from autoprune.config.settings import bind, check_settings
from autoprune.errors import ConfigError, RegistryError
from autoprune.registry import Part, Registry, load_object

ROOT = Path(__file__).parent.parent
TABLES: dict[str, Registry] = {kind: load_object(path) for kind, path in KINDS.items()}
PARTS = [(kind, name) for kind, table in TABLES.items() for name in table.names()]


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, table in TABLES.items() for name in table.cards()])
def test_a_card_says_where_the_part_comes_from_and_when_to_use_it(kind: str, name: str) -> None:
    card = TABLES[kind].card(name)
    assert card.source
    assert card.use[0].isupper()
    assert card.use.endswith(".")
    assert callable(load_object(card.path))


@pytest.mark.parametrize(("kind", "name"), PARTS)
def test_every_setting_is_explained(kind: str, name: str) -> None:
    table = TABLES[kind]
    part = table.get(name)
    parameters = list(inspect.signature(part).parameters)
    made = typing.get_type_hints(part).get("return") if inspect.isfunction(part) else None
    text = f"{inspect.getdoc(part)} {inspect.getdoc(made)}"
    assert len(parameters) >= table.called_with
    for setting in set(parameters[table.called_with :]) - set(table.reserved):
        assert f"{setting}:" in text
    assert set(table.card(name).needs) <= set(parameters)


@pytest.mark.parametrize(("kind", "name"), PARTS)
def test_an_unknown_setting_is_refused_by_name(kind: str, name: str) -> None:
    table = TABLES[kind]
    if any(p.kind is p.VAR_KEYWORD for p in inspect.signature(table.get(name)).parameters.values()):
        pytest.skip("hands on what it does not know")
    allowed = list(inspect.signature(table.get(name)).parameters)[table.called_with :]
    settings = [setting for setting in allowed if setting not in table.reserved]
    message = f"its settings are {', '.join(settings)}" if settings else "it has no settings"
    with pytest.raises(ConfigError, match=f"{table.kind} '{name}' has no setting 'zzz'; {message}"):
        bind(table, name, {"zzz": 1})


@pytest.mark.parametrize("kind", TABLES)
def test_what_the_caller_gives_is_no_setting(kind: str) -> None:
    table = TABLES[kind]
    for name in table.names():
        for given in (*list(inspect.signature(table.get(name)).parameters)[: table.called_with], *table.reserved):
            with pytest.raises(ConfigError, match=f"has no setting '{given}'"):
                bind(table, name, {given: 1})


def test_a_missing_argument_is_named_with_how_to_come_by_it() -> None:
    with pytest.raises(ConfigError, match="latency_ms' needs the setting 'profile': `autoprune latency profile MODEL`"):
        bind(TABLES["metrics"], "latency_ms", {})


def test_the_table_of_parts_in_contributing_has_a_row_for_each_kind() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text().partition("## Adding a part")[2].partition("\n## ")[0]
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    rows = {kind.strip(): (folder.strip(" `"), group.strip(" `")) for kind, folder, _, group in lines[2:]}
    assert {table.kind: table._group for table in TABLES.values()}.items() <= {
        k: g for k, (_, g) in rows.items()
    }.items()
    assert all((ROOT / "autoprune" / folder).is_dir() for folder, _ in rows.values())


def by_position(tensor: object, generator: object, *, power: float = 2.0) -> tuple[object, ...]:
    """Powers of weights.

    Not told.
    """
    return tensor, generator, power


class WithACard:
    """Not told either."""

    source = "Doe 2027"
    use = "When nothing else works."


ready = {"power": 2}
SHELF = Registry("tool", {"own": f"{__name__}:by_position"}, group="shelf", called_with=2)


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Registry:
    offered = {"carded": "WithACard", "told": "by_position", "ready": "ready", "gone": "no_such"}
    points = EntryPoints(EntryPoint(name, f"{__name__}:{path}", "shelf") for name, path in offered.items())
    monkeypatch.setattr(registry, "entry_points", lambda **_: points)
    return SHELF


@pytest.mark.parametrize(
    ("name", "source", "use"),
    [
        ("carded", "Doe 2027", "When nothing else works."),
        ("told", "an installed package", "Powers of weights."),
        ("own", "an installed package", "Powers of weights."),
        ("ready", "an installed package", "Its package does not say when to use it."),
        ("gone", "an installed package", f"It is broken: '{__name__}:no_such': '{__name__}' has no 'no_such'."),
    ],
)
def test_parts_of_other_packages_say_themselves_what_they_are(
    shelf: Registry, name: str, source: str, use: str
) -> None:
    assert list(shelf.cards()) == ["own", "carded", "told", "ready", "gone"]
    assert (shelf.card(name).source, shelf.card(name).use) == (source, use)
    with pytest.raises(RegistryError, match="Did you mean 'carded'"):
        shelf.card("cardd")


def test_settings_are_bound_whatever_the_first_arguments_are_called(shelf: Registry) -> None:
    assert bind(shelf, "told", {"power": 3.0})(1, 2) == (1, 2, 3.0)
    assert bind(shelf, "told", {})(1, 2) == (1, 2, 2.0)
    with pytest.raises(ConfigError, match="no setting 'generator'; its settings are power"):
        bind(shelf, "told", {"generator": 1})
    with pytest.raises(ConfigError, match="tool 'ready' has no setting 'power'; it has no settings"):
        bind(shelf, "ready", {"power": 1})


def family(rest: str) -> Any:
    return lambda power=1: (rest, power)


def test_a_family_makes_its_parts_from_what_follows_its_prefix() -> None:
    table = Registry("tool", {}, families={"any:NAME": Part(f"{__name__}:family", "its source", "Always.")})
    assert table.get("any:a:b")() == ("a:b", 1)
    assert bind(table, "any:x", {"power": 3})() == ("x", 3)
    assert table.names() == []
    assert table.card("any:x") is table.cards()["any:NAME"]
    with pytest.raises(RegistryError, match="unknown tool 'some'; choose one of any:NAME"):
        table.get("some")
    with pytest.raises(RegistryError, match="'some:x': module 'some' was not found"):  # a part without a name
        table.get("some:x")


def test_what_does_not_tell_its_keywords_is_believed() -> None:
    check_settings(dict, {"anything": 1}, what="a class written in C")
